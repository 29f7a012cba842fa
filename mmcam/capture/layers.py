"""Find the layers of a model by name, and intercept their outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmcam.errors import LayerError, nearest


def resolve(model: nn.Module, patterns: Sequence[str], name: str = "the model") -> list[str]:
    """The layers that match `patterns`, in the model's order, each once.

    A pattern is a module's name as in `named_modules`, where `*` matches any characters between
    two dots: `layer*`, `features.*`, `blocks.*.norm1`. The suffix `#1` selects the second call of a
    module that runs several times in a forward.

    Raises:
        LayerError: a pattern matches nothing.
    """
    known = [layer for layer, _ in model.named_modules() if layer]
    resolved: list[str] = []
    for pattern in patterns:
        stem, _, call = pattern.partition("#")
        regex = re.compile(re.escape(stem).replace(r"\*", "[^.]*"))
        matches = [layer for layer in known if regex.fullmatch(layer)]
        if not matches or (call and not call.isdigit()):
            raise LayerError(
                f"{name} has no layer '{pattern}'; nearest: {nearest(stem, known)}. "
                "`mmcam list layers --model MODEL` lists them"
            )
        resolved += [f"{layer}#{call}" if call else layer for layer in matches]
    return sorted(set(resolved), key=lambda layer: known.index(layer.partition("#")[0]))


def map_tensor(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`output` with `change` applied to its map, the first tensor with three axes or more.

    Searches tuples, lists and mappings (model outputs). Returns None if there is no map.
    """
    if isinstance(output, Tensor):
        return change(output) if output.is_floating_point() and output.ndim >= 3 else None
    if isinstance(output, (tuple, list)):
        for position, item in enumerate(output):
            changed = map_tensor(item, change)
            if changed is not None:
                items = [*output[:position], changed, *output[position + 1 :]]
                return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if isinstance(output, Mapping):
        for key, item in output.items():
            changed = map_tensor(item, change)
            if changed is not None:
                entries = {**output, key: changed}
                kind: Any = type(output)
                named = all(isinstance(name, str) for name in entries)
                return kind(**entries) if named else kind(entries)
    return None


@contextmanager
def tapped(
    model: nn.Module, layers: Sequence[str], change: Callable[[str, Tensor], Tensor]
) -> Iterator[Callable[[], None]]:
    """In this context, each layer's map is replaced by `change(layer, map)` during the forward.

    Yields a function to call after the forward. The function removes the hooks and checks that
    every layer ran exactly once, unless the layer was named with the number of its call.

    Raises:
        LayerError: a layer's output holds no map; by the check: a layer did not run, or ran several
            times and its name has no number of a call.
    """
    wanted: dict[str, set[str]] = {}
    for layer in layers:
        stem, _, call = layer.partition("#")
        wanted.setdefault(stem, set()).add(call)
    calls = dict.fromkeys(wanted, 0)

    def hook_for(stem: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            number = str(calls[stem])
            calls[stem] += 1
            for call in wanted[stem] & {"", number}:
                layer = f"{stem}#{call}" if call else stem
                changed = map_tensor(output, partial(change, layer))
                if changed is None:
                    raise LayerError(
                        f"layer '{layer}' gives {describe_output(output)}, which has no grid to "
                        "explain; name a layer before the pooling"
                    )
                output = changed
            return output

        return hook

    def check() -> None:
        for stem, numbers in wanted.items():
            for call in numbers:
                if calls[stem] <= int(call or 0):
                    ran = f"ran {calls[stem]} times" if calls[stem] else "did not run"
                    raise LayerError(
                        f"layer '{stem}' {ran} in the forward, so there is no call "
                        f"{int(call or 0)} to explain; name a layer that runs"
                    )
                if not call and calls[stem] > 1:
                    raise LayerError(
                        f"layer '{stem}' ran {calls[stem]} times in one forward; say which call: "
                        f"'{stem}#{calls[stem] - 1}' is the last"
                    )

    with ExitStack() as stack:
        for stem in wanted:
            module = model.get_submodule(stem)
            stack.callback(module.register_forward_hook(hook_for(stem)).remove)

        def finish() -> None:
            stack.close()  # later forwards are not tapped
            check()

        yield finish


def describe_output(output: Any) -> str:
    """The type and shape of an output, for an error message."""
    shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
    return f"a {type(output).__name__}{shape}"
