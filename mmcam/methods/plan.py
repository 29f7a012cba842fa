"""A selection of methods by name, and what these methods need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmcam.errors import MethodError, nearest
from mmcam.methods.table import METHODS, Method

PRODUCTS = ("guided", "deconv")


@dataclass(frozen=True)
class Plan:
    """The maps to compute: names of methods and of products such as `guided-gradcam`."""

    names: tuple[str, ...]

    @staticmethod
    def of(methods: Sequence[str], guided: bool) -> Plan:
        """The plan for these methods; with `guided`, also the guided product of each that has one.

        Raises:
            MethodError: an unknown method.
        """
        for name in methods:
            if not isinstance(name, str):
                raise MethodError(f"{name!r} is no name of a method (mmcam list methods)")
        names = list(dict.fromkeys(methods))
        for name in names:
            split(name)
        if guided:
            names += [f"guided-{name}" for name in names if name in METHODS and has_product(name)]
        return Plan(tuple(dict.fromkeys(names)))

    @property
    def methods(self) -> list[Method]:
        """The rows of `METHODS` that the plan needs, products split into their factors."""
        return [METHODS[part] for name in self.names for part in split(name) if part]

    def needs(self, kind: str) -> bool:
        """Whether any method of the plan needs `kind` (see `Method.needs`)."""
        return any(method.needs == kind for method in self.methods)

    @property
    def pooled(self) -> bool:
        """Whether the gradient-based layer maps need only the gradient's mean over the grid."""
        return all(m.pooled for m in self.methods if m.needs in ("gradient", "moments"))

    @property
    def needs_layers(self) -> bool:
        """Whether any method explains a layer; attention, pixel and occlusion maps need none."""
        return any(method.pseudo_layer is None for method in self.methods)

    def check_counterfactual(self) -> None:
        """Check that every map depends on the score, so that it has a counterfactual.

        Raises:
            MethodError: a method does not depend on the score.
        """
        for name in self.names:
            if not METHODS[split(name)[0]].target:
                raise MethodError(
                    f"method '{name}' does not depend on the score, so it has no counterfactual; "
                    "choose another method (mmcam list methods)"
                )

    @property
    def rules(self) -> set[str]:
        """The backward rules of the plan's methods."""
        return {method.rule for method in self.methods}


def split(name: str) -> tuple[str, str | None]:
    """Split a name into a method and, for a product, the pixel-space method that multiplies it.

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
