"""TorchScript, exported and compiled models, DataParallel, layers of integers, packed sequences.

What can be explained has the maps of the plain network; all else is refused with a method that
works.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import mmcam
from mmcam.capture.layers import recordable_layers
from mmcam.capture.model_state import untouched
from mmcam.capture.relu_rules import ReluRule
from mmcam.errors import LayerError, MethodError, MmcamError, ScoreError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)

EXAMPLE = torch.zeros(1, 3, 10, 12)
METHODS = [
    *("gradcam-signed", "gradcam++softmax", "guided-gradcam-signed", "scorecam", "ablationcam"),
    *("gradient", "guided", "deconv", "occlusion"),
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).mean((2, 3)))


def with_trunk(trunk: Any) -> nn.Module:
    net = Net().eval()
    net.trunk = trunk
    return net


def compiled_in_place() -> nn.Module:
    net = Net().eval()
    net.trunk.compile(backend="eager")
    return net


def export() -> nn.Module:
    return torch.export.export(Net().eval(), (EXAMPLE,)).module()


def dynamic_int8() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear}, torch.qint8)


def static_int8() -> nn.Module:
    if "x86" not in torch.backends.quantized.supported_engines:
        pytest.skip("no quantised convolutions on this processor")
    plain = Net().eval()
    stubs = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
    pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(stubs[0], plain.trunk, stubs[1], *pool, plain.head).eval()
    net.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    net[5].qconfig = None
    torch.ao.quantization.prepare(net, inplace=True)
    net(torch.rand(8, 3, 10, 12))
    torch.ao.quantization.convert(net, inplace=True)
    return net


LIKE_THE_PLAIN_NETWORK: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "compiled": (lambda: torch.compile(Net().eval(), backend="eager"), "_orig_mod.trunk"),
    "aot": (lambda: torch.compile(Net().eval(), backend="aot_eager"), "_orig_mod.trunk"),
    "compiled trunk": (lambda: with_trunk(torch.compile(Net().eval().trunk, backend="eager")), ""),
    "compiled in place": (compiled_in_place, ""),
    "parallel": (lambda: nn.DataParallel(Net().eval()), "module.trunk"),
    "traced trunk": (lambda: with_trunk(torch.jit.trace(Net().eval().trunk, EXAMPLE)), ""),
    "symbolic trace": (lambda: torch.fx.symbolic_trace(Net().eval()), "trunk.4"),
}
"""Name -> the network in another form, and its name for the layer `trunk`, if another."""

ONE_GRAPH: dict[str, Callable[[], nn.Module]] = {
    "script": lambda: torch.jit.script(Net().eval()),
    "trace": lambda: torch.jit.trace(Net().eval(), EXAMPLE),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(Net().eval())),
    "scripted trunk": lambda: with_trunk(torch.jit.script(Net().eval().trunk)),
    "export": export,
}
"""Networks whose layer `trunk` cannot be recorded."""


def warm(net: nn.Module) -> nn.Module:
    """The network after runs of its own, which compile it and fuse its operations."""
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    for _ in range(3):
        net(torch.rand(1, 3, 10, 12, requires_grad=True)).sum().backward()
    return net


@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.parametrize("form", LIKE_THE_PLAIN_NETWORK)
def test_maps_equal_those_of_the_plain_network(
    form: str, is_warm: bool, wrapped: Callable[..., Any]
) -> None:
    build, layer = LIKE_THE_PLAIN_NETWORK[form]
    net = warm(build()) if is_warm else build()
    plain, other = wrapped(Net().eval(), "trunk"), wrapped(net, layer or "trunk")
    sample = plain.sample(10, 12)
    for method in METHODS:
        expected = plain.cam(sample, method, 2)
        assert expected.any(), method
        assert_close(other.cam(sample, method, 2), expected, msg=method)
    setup = wrapped(net)
    assert_close(setup.cam(sample, "hirescam", 2), plain.cam(sample, "hirescam", 2))
    assert list(setup.adapter.layers) == [layer or "trunk"]


@pytest.mark.parametrize("form", ONE_GRAPH)
def test_layers_inside_one_graph_are_refused(form: str, wrapped: Callable[..., Any]) -> None:
    net = warm(ONE_GRAPH[form]())
    plain = wrapped(Net().eval(), "trunk")
    sample = plain.sample(10, 12)
    for layer in (None, "trunk"):
        for method in ("gradcam", "gradcam++softmax", "scorecam", "ablationcam"):
            with pytest.raises(
                LayerError, match=r"runs inside one graph .* use gradient or occlus"
            ):
                wrapped(net, layer).cam(sample, method, 2)
    refusals = []
    for method in ("gradient", "guided", "deconv", "occlusion"):
        expected = plain.cam(sample, method, 2)
        try:
            result = wrapped(net).cam(sample, method, 2)
        except MethodError as error:
            refusals.append(str(error))
        else:
            assert_close(result, expected, msg=method)
    # A script whose operations were fused by earlier runs of the same kind stays fused.
    assert form in ("script", "frozen", "scripted trunk") or not refusals
    assert all("are fused (TorchScript, torch.compile), which hides" in text for text in refusals)


class Functional(nn.Module):
    """Without submodules: TorchScript shares what it fuses among all modules of a type."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.second = nn.Parameter(torch.randn(5, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.conv2d(torch.conv2d(x, self.first).relu(), self.second).relu()
        return x.mean((2, 3))


def test_relu_rules_in_later_runs_of_a_script(wrapped: Callable[..., Any]) -> None:
    """Operations are fused from the second run on, unless that is switched off."""
    plain, script = wrapped(Functional()), wrapped(torch.jit.script(Functional()))
    sample = plain.sample(10, 12)
    for method in ("guided", "deconv", "guided", "gradient"):
        assert_close(script.cam(sample, method, 2), plain.cam(sample, method, 2), msg=method)


def test_fused_operations_are_noticed() -> None:
    """Outside `plain_run`, TorchScript and a compiled model hide their ReLUs in one node."""
    compiled = torch.compile(Net().eval(), backend="aot_eager")
    pixels = torch.rand(1, 3, 10, 12, requires_grad=True)
    assert ReluRule(warm(ONE_GRAPH["script"]())(pixels).sum(), "guided").is_fused
    assert ReluRule(compiled(pixels).sum(), "guided").is_fused
    assert not ReluRule(Net()(pixels).sum(), "guided").is_fused


def test_a_quantised_head_has_no_gradient(wrapped: Callable[..., Any]) -> None:
    plain = wrapped(Net().eval(), "trunk")
    sample = plain.sample(10, 12)
    setup = wrapped(dynamic_int8(), "trunk")
    for method in ("gradcam", "gradient", "guided-gradcam"):
        with pytest.raises(ScoreError, match=r"layer 'head' computes with integers; use occlusion"):
            setup.cam(sample, method, 2)
    for method in ("scorecam", "ablationcam", "occlusion"):
        expected = plain.cam(sample, method, 2)
        difference = (setup.cam(sample, method, 2) - expected).abs().max()
        assert difference < 0.05 * expected.abs().max(), method


def test_quantised_convolutions_have_no_map(wrapped: Callable[..., Any]) -> None:
    net = static_int8()
    plain = wrapped(Net().eval(), "trunk")
    sample = plain.sample(10, 12)
    for layer in (None, "1", "1.0"):
        for method in ("gradcam", "ablationcam"):
            with pytest.raises(LayerError, match=r"integers|type quint8") as info:
                wrapped(net, layer).cam(sample, method, 2)
            assert "; use occlusion" in str(info.value)
    with pytest.raises(MmcamError, match="integers; use occlusion"):
        wrapped(net).cam(sample, "gradient", 2)
    result = wrapped(net).cam(sample, "occlusion", 2).flatten()
    expected = plain.cam(sample, "occlusion", 2).flatten()
    assert torch.corrcoef(torch.stack([result, expected]))[0, 1] > 0.9


class Packed(nn.Module):
    """A layer returns a PackedSequence, the next one a tuple of it and states."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 4, 3)
        self.pack = Pack()
        self.rows = nn.GRU(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.pack(self.trunk(x).flatten(2).transpose(1, 2))
        return self.head(self.rows(steps)[1][-1])


class Pack(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return nn.utils.rnn.pack_padded_sequence(x, [x.shape[1]] * len(x), batch_first=True)


def test_packed_sequences(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(Packed())
    sample = setup.sample(6, 7)
    assert setup.cam(sample, "gradcam-signed", 1).any()
    assert list(setup.adapter.layers) == ["trunk"]
    with pytest.raises(LayerError, match="'pack' returns a PackedSequence, which has no grid"):
        wrapped(Packed(), "pack").cam(sample, "gradcam", 1)
    with pytest.raises(LayerError, match="name a layer before the pooling, flattening or packing"):
        wrapped(Packed(), "pack").cam(sample, "ablationcam", 1)


def test_one_sample_at_a_time(wrapped: Callable[..., Any]) -> None:
    """A model that takes only one sample is scored again one sample at a time."""

    class Single(Net):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 1:
                raise ValueError("one sample")
            return super().forward(x)

    plain, single = wrapped(Net().eval(), "trunk"), wrapped(Single().eval(), "trunk")
    sample = plain.sample(10, 12)
    for method in ("scorecam", "occlusion"):
        assert_close(single.cam(sample, method, 2), plain.cam(sample, method, 2))


def test_data_parallel_runs_on_one_device() -> None:
    net = nn.DataParallel(Net())
    net.device_ids = [0, 1]
    with untouched(net):
        assert net.device_ids == [0]
    assert net.device_ids == [0, 1]


def test_recordable_layers() -> None:
    assert list(recordable_layers(Net())) == [n for n, _ in Net().named_modules() if n]
    assert not recordable_layers(ONE_GRAPH["script"]())
    names = list(recordable_layers(nn.Sequential(torch.fx.symbolic_trace(Net()), nn.ReLU())))
    assert names == ["0", *(f"0.trunk.{i}" for i in range(5)), "0.head", "1"]
    assert list(recordable_layers(with_trunk(ONE_GRAPH["trace"]()))) == ["trunk", "head"]


def test_the_last_line_of_a_torchscript_error_is_its_reason(wrapped: Callable[..., Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.script(copy.deepcopy(Net().eval()))
    setup = wrapped(net)
    with pytest.raises(mmcam.MmcamError, match=r"RuntimeError: .*[Kk]ernel size") as info:
        setup.cam(setup.sample(2, 2), "occlusion", 1)
    assert "TorchScript interpreter" not in str(info.value)
