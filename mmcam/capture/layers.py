"""Find the layers of a model by name, and intercept their outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.jit._trace import TopLevelTracedModule

from mmcam.errors import LayerError, nearest

INTEGERS = (
    "use occlusion, which needs neither layers nor gradients, or the model before quantisation"
)
"""The remedy for layers that compute with integers."""


def recordable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose outputs a hook can record, by name, in the model's order.

    TorchScript ignores the hooks of its modules, except those of the outermost traced module. A
    graph of `torch.fx` or `torch.export` runs only the modules that it calls.
    """
    layers: dict[str, nn.Module] = {}
    inside_graph: dict[str, tuple[str, ...]] = {}  # prefix of a graph's modules -> those it calls
    for name, module in model.named_modules():
        graphs = [prefix for prefix in inside_graph if name and name.startswith(prefix)]
        calls = [call for prefix in graphs for call in inside_graph[prefix]]
        runs = not graphs or any(f"{name}.".startswith(f"{call}.") for call in calls)
        prefix = f"{name}." if name else ""
        if isinstance(module, torch.fx.GraphModule):
            targets = (str(node.target) for node in module.graph.nodes if node.op == "call_module")
            inside_graph[prefix] = tuple(f"{prefix}{target}" for target in targets)
        elif isinstance(module, torch.jit.ScriptModule):
            inside_graph[prefix] = ()
            runs = runs and isinstance(module, TopLevelTracedModule)
        if name and runs:
            layers[name] = module
    return layers


def unrecordable(model: nn.Module) -> str | None:
    """Why some layers of a model cannot be recorded, and the remedy; None if all can be.

    The text is the end of an error message.
    """
    if any(isinstance(m, (torch.fx.GraphModule, torch.jit.ScriptModule)) for m in model.modules()):
        return (
            "runs inside one graph (TorchScript, torch.fx or torch.export), which has no hooks; "
            "explain the module that the graph was made from, or use gradient or occlusion, which "
            "need no layer"
        )
    return None if quantised(model) is None else f"computes with integers; {INTEGERS}"


def quantised(model: nn.Module) -> str | None:
    """The name of a layer that computes with integers and passes no gradient; None without any."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic")):
            return str(name)
    return None


Layer = str | nn.Module
"""A layer as users name it: a name, a pattern (see `resolve`), or the module itself."""


def layer_patterns(
    model: nn.Module, layers: Layer | Sequence[Layer], name: str = "the model"
) -> list[str]:
    """Layers that were given as names, patterns or modules, as patterns for `resolve`.

    Raises:
        LayerError: a module that is not a part of the model, or the model itself.
    """
    given = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    names = {module: path for path, module in model.named_modules()}
    patterns = []
    for layer in given:
        if isinstance(layer, str):
            patterns.append(layer)
        elif not isinstance(layer, nn.Module):
            raise LayerError(f"{layer!r} is no layer; give a name, a pattern or a module of {name}")
        elif path := names.get(layer):
            patterns.append(path)
        elif layer is model:
            raise LayerError(f"{type(layer).__name__} is {name} itself; give a layer inside it")
        else:
            raise LayerError(
                f"the {type(layer).__name__} given as a layer is not a part of {name}; give a "
                "module inside it (of the same instance, not of a copy), or its name"
            )
    return patterns


def resolve(model: nn.Module, patterns: Sequence[str], name: str = "the model") -> list[str]:
    """The layers that match `patterns`, in the model's order, without duplicates.

    A pattern is a module's name as in `named_modules`, where `*` matches any characters except
    dots: `layer*`, `features.*`, `blocks.*.norm1`. The suffix `#1` selects the second call of a
    module that runs several times in a forward pass.

    Raises:
        LayerError: a pattern matches nothing, or only layers whose outputs cannot be recorded, or
            what follows its `#` is not a number.
    """
    known = list(recordable_layers(model))
    resolved: list[str] = []
    for pattern in patterns:
        stem, _, call = pattern.partition("#")
        regex = re.compile(re.escape(stem).replace(r"\*", "[^.]*"))
        matches = [layer for layer in known if regex.fullmatch(layer)]
        if not matches and (reason := unrecordable(model)):
            is_inside = any(regex.fullmatch(layer) for layer, _ in model.named_modules())
            if is_inside or not known:
                raise LayerError(f"layer '{pattern}' of {name} {reason}")
        if not matches or (call and not call.isdigit()):
            raise LayerError(
                f"{name} has no layer '{pattern}'; nearest: {nearest(stem, known)}. "
                "`mmcam list layers --model MODEL` lists them"
            )
        resolved += [f"{layer}#{call}" if call else layer for layer in matches]

    def order(layer: str) -> tuple[int, int]:
        stem, _, call = layer.partition("#")
        return known.index(stem), int(call or -1)

    return sorted(set(resolved), key=order)


def map_tensor(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`output` with `change` applied to its map: the first float tensor with three or more axes.

    Searches tuples, lists and mappings (such as transformers' outputs). Returns None if there is no
    map.
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
                has_string_keys = all(isinstance(name, str) for name in entries)
                return kind(**entries) if has_string_keys else kind(entries)
    return None


@contextmanager
def tapped(
    model: nn.Module, layers: Sequence[str], change: Callable[[str, Tensor], Tensor]
) -> Iterator[Callable[[], None]]:
    """In this context, `change(layer, map)` replaces each layer's map during the forward pass.

    Yields a function to call after the forward pass. The function removes the hooks and checks that
    every layer ran exactly once, unless its name has a call number (`#1`): then that call must
    have run.

    Raises:
        LayerError: a layer's output holds no map (raised during the forward pass). The yielded
            function raises it if a layer or the named call did not run, or if a layer without a
            call number ran several times.
    """
    calls_by_stem: dict[str, set[str]] = {}
    for layer in layers:
        stem, _, call = layer.partition("#")
        calls_by_stem.setdefault(stem, set()).add(call)
    counts = dict.fromkeys(calls_by_stem, 0)

    def hook_for(stem: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            number = str(counts[stem])
            counts[stem] += 1
            for call in calls_by_stem[stem] & {"", number}:
                layer = f"{stem}#{call}" if call else stem
                changed = map_tensor(output, partial(change, layer))
                if changed is None:
                    raise LayerError(
                        f"layer '{layer}' returns {describe_output(output)}, {_why_no_map(output)}"
                    )
                output = changed
            return output

        return hook

    def check() -> None:
        for stem, calls in calls_by_stem.items():
            for call in calls:
                if counts[stem] <= int(call or 0):
                    ran = f"ran {counts[stem]} times" if counts[stem] else "did not run"
                    raise LayerError(
                        f"layer '{stem}' {ran} in the forward, so there is no call "
                        f"{int(call or 0)} to explain (the first is 0); name a layer or "
                        "a call that runs"
                    )
                if not call and counts[stem] > 1:
                    raise LayerError(
                        f"layer '{stem}' ran {counts[stem]} times in one forward; name the call: "
                        f"'{stem}#{counts[stem] - 1}' is the last"
                    )

    with ExitStack() as stack:
        for stem in calls_by_stem:
            module = model.get_submodule(stem)
            stack.callback(module.register_forward_hook(hook_for(stem)).remove)

        def finish() -> None:
            stack.close()  # later forwards are not tapped
            check()

        yield finish


def _why_no_map(output: Any) -> str:
    """Why an output has no map, and the remedy, as the end of an error message."""
    if isinstance(output, Tensor) and output.ndim >= 3:
        return f"whose values are not floats; {INTEGERS}"
    return "which has no grid to explain; name a layer before the pooling, flattening or packing"


def describe_output(output: Any) -> str:
    """The type and shape of an output, and its dtype if not float, for an error message."""
    shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
    if isinstance(output, Tensor) and not output.is_floating_point():
        shape += f" and type {str(output.dtype).removeprefix('torch.')}"
    return f"a {type(output).__name__}{shape}"
