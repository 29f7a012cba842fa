"""Which maps to make: every method by name, and what a choice of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmcam.errors import MethodError, nearest
from mmcam.methods.table import METHODS, Method

PRODUCTS = ("guided", "deconv")


@dataclass(frozen=True)
class Plan:
    """Which maps to make: names of methods, each a map and maybe the pixel map it is multiplied by.

    Raises (by `Plan.of`):
        MethodError: an unknown method.
    """

    names: tuple[str, ...]

    @staticmethod
    def of(methods: Sequence[str], guided: bool) -> Plan:
        """The plan for these methods; with `guided`, guided products of all maps among them too."""
        names = list(dict.fromkeys(methods))
        for name in names:
            split(name)
        if guided:
            names += [f"guided-{name}" for name in names if name in METHODS and has_product(name)]
        return Plan(tuple(dict.fromkeys(names)))

    @property
    def parts(self) -> list[Method]:
        """Every row of `METHODS` that the plan needs."""
        return [METHODS[part] for name in self.names for part in split(name) if part]

    def needs(self, kind: str) -> bool:
        """Whether any part of the plan needs `kind`, as `Method.needs` has it."""
        return any(part.needs == kind for part in self.parts)

    @property
    def pooled(self) -> bool:
        """Whether no map of a layer needs more of the gradient than its mean over the grid."""
        return all(part.pooled for part in self.parts if part.needs in ("gradient", "moments"))

    @property
    def has_layers(self) -> bool:
        """Whether any map is one of a layer that is named; attention and pixels need none."""
        return any(part.place is None for part in self.parts)

    def check_counterfactual(self) -> None:
        """That every map depends on what is asked, so that asking the opposite makes sense.

        Raises:
            MethodError: one does not.
        """
        for name in self.names:
            if not METHODS[split(name)[0]].target:
                raise MethodError(
                    f"method '{name}' does not look at the score, so it has no counterfactual; "
                    "choose another method (mmcam list methods)"
                )

    @property
    def rules(self) -> set[str]:
        """The backward rules that the plan takes gradients under."""
        return {part.rule for part in self.parts}


def split(name: str) -> tuple[str, str | None]:
    """A method's map, and the pixel-space map it is multiplied by, if it is a product.

    Raises:
        MethodError: there is no such method.
    """
    if name in METHODS:
        return name, None
    factor, _, base = name.partition("-")
    if factor in PRODUCTS and base in METHODS and has_product(base):
        return base, factor
    bases = [base for base in METHODS if has_product(base)]
    known = [*METHODS, *(f"{factor}-{base}" for factor in PRODUCTS for base in bases)]
    raise MethodError(
        f"there is no method '{name}'; nearest: {nearest(name, known)}. "
        "List them: mmcam list methods"
    )


def has_product(name: str) -> bool:
    """Whether a method's map can be multiplied by a pixel-space map."""
    return METHODS[name].needs in ("gradient", "moments", "rescore")
