"""`mmcam.cams`: tensors in, raw maps out, also in the middle of a training step."""

from __future__ import annotations

import copy
import gc
import inspect
import random
import re
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.capture import proof
from mmcam.errors import InputError, LabelError, LayerError, MethodError, ModelError, ScoreError

METHODS = ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam", "gradient"]
DIFFERENTIABLE = ["gradcam", "gradcam-signed", "hirescam", "layercam", "elementwise", "gradient"]


class Net(nn.Module):
    """A network of pictures or clips with any number of channels, in double precision."""

    def __init__(self, channels: int = 3, axes: int = 2, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(channels)
        conv, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[axes - 2]
        self.stem = conv(channels, 6, 3, padding=1, stride=2)
        self.norm = norm(6)
        self.block = nn.Sequential(conv(6, 8, 3, padding=1), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, classes)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.block(self.norm(self.stem(x)).sigmoid())
        return self.head(self.drop(maps.flatten(2).mean(2)).tanh())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def gradcam_by_hand(net: Net, x: Tensor, score: Any) -> Tensor:
    kept: list[Tensor] = []
    handle = net.block.register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        value = score(net(x)).sum()
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(value, kept[0])
    weights = gradient.flatten(2).mean(2).reshape(*gradient.shape[:2], *[1] * (x.ndim - 2))
    return (weights * kept[0]).sum(1).relu().detach()


@pytest.mark.parametrize("shape", [(1, 9, 13), (5, 12, 8), (3, 4, 9, 6), (2, 6, 5, 5)])
def test_any_number_of_channels_of_pictures_and_clips(shape: tuple[int, ...]) -> None:
    net, x = Net(shape[0], len(shape) - 1), noise(3, *shape)
    targets = [1, 4, 0]
    maps = mmcam.cams(net, x, targets, net.block)
    rows = torch.tensor(targets)[:, None]
    assert torch.allclose(maps, gradcam_by_hand(net, x, lambda y: y.gather(1, rows)[:, 0]))
    assert maps.shape == (3, *(-(-side // 2) for side in shape[1:]))
    assert not maps.requires_grad


@pytest.mark.parametrize("method", [*METHODS, "guided-gradcam", "scorecam", "occlusion"])
def test_the_maps_are_those_of_explain(method: str) -> None:
    class Rectified(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(self.stem(x).relu()).flatten(2).mean(2))

    net = Rectified().float()
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    adapter = mmcam.wrap(net, Preprocess(mean=(0, 0, 0), std=(1, 1, 1)), layer="block")
    explanation = mmcam.explain(adapter, picture, mmcam.Classes([2]), method=method)[0]
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    maps = mmcam.cams(net, pixels, 2, "block", method=method)
    assert torch.allclose(maps[0], explanation.cam, atol=1e-6)


def test_targets_of_every_kind() -> None:
    net, x = Net(), noise(2, 3, 8, 8)
    first = mmcam.cams(net, x, 3, "block")
    for same in (
        [3, 3],
        (3, 3),
        torch.tensor([3, 3]),
        torch.tensor(3),
        np.int64(3),
        np.array([3, 3]),
        mmcam.Target.logit(3),
        lambda output: output[:, 3],
    ):
        assert torch.equal(mmcam.cams(net, x, same, "block"), first)
    highest = net(x).argmax(1)
    assert torch.equal(mmcam.cams(net, x, None, "block"), mmcam.cams(net, x, highest, "block"))


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([1], LabelError, "1 targets for 2 rows"),
        (5, LabelError, "target 5 is not a class of Net, whose output has 5"),
        (-1, LabelError, "whole numbers from 0 to 4"),
        (torch.tensor([0.5, 1.0]), LabelError, "is no class number"),
        (lambda output: output, ScoreError, r"must be a tensor of shape \(2,\)"),
    ],
)
def test_targets_that_do_not_fit(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mmcam.cams(Net(), noise(2, 3, 8, 8), target, "block")


def test_a_class_number_needs_logits() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    with pytest.raises(ModelError, match=r"logits of shape \(1, 2, 6, 6\)"):
        mmcam.cams(net, noise(1, 3, 8, 8), 1, "1")
    maps = mmcam.cams(net, noise(1, 3, 8, 8), lambda output: output[:, 1].mean((1, 2)), "1")
    assert maps.shape == (1, 6, 6)


def test_layers_by_name_as_modules_and_by_default() -> None:
    net, x = Net(), noise(1, 3, 8, 8)
    by_name = mmcam.cams(net, x, 1, ["stem", "block"])
    assert list(by_name) == ["stem", "block"]
    by_module = mmcam.cams(net, x, 1, [net.stem, "block"])
    assert all(torch.equal(by_name[name], by_module[name]) for name in by_name)
    assert torch.equal(mmcam.cams(net, x, 1), by_name["block"])
    assert torch.equal(mmcam.cams(net, x, 1, "block.1"), by_name["block"])
    assert list(mmcam.cams(net, x, 1, ["block.*"])) == ["block.0", "block.1"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("block.*", "matches 2 layers"),
        ("blok", "no layer 'blok'; nearest: block"),
        (nn.ReLU(), "not a part of Net"),
        ([], "list of layers is empty"),
        ("head", "layer 'head'"),
    ],
)
def test_layers_that_do_not_fit(layers: Any, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        mmcam.cams(Net(), noise(1, 3, 8, 8), 1, layers)
    net = Net()
    with pytest.raises(LayerError, match="Net is Net itself"):
        mmcam.cams(net, noise(1, 3, 8, 8), 1, net)


class Conditioned(nn.Module):
    """A network of a condition, a picture, a mask for each row and a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 6, 3, padding=1).double()
        self.head = nn.Linear(6, 3).double()

    def forward(
        self, condition: Tensor, picture: Tensor, mask: Tensor, *, scale: float = 1.0
    ) -> dict[str, Tensor]:
        maps = self.conv(picture).relu() * mask[:, None] * condition[:, :, None, None]
        return {"other": maps, "logits": scale * self.head(maps.mean((2, 3)))}


@pytest.mark.parametrize("method", ["hirescam", "scorecam"])
def test_several_arguments_by_position_and_by_name(method: str) -> None:
    net = Conditioned()
    condition, picture, mask = noise(2, 6), noise(2, 4, 8, 6), noise(2, 8, 6).abs()
    options: dict[str, Any] = {"layers": "conv", "method": method}

    def score(output: dict[str, Tensor]) -> Tensor:
        return output["logits"][:, 1]

    together = mmcam.cams(net, (condition, picture, mask), score, **options)
    named = {"condition": condition, "picture": picture, "mask": mask, "scale": 1.0}
    assert torch.equal(mmcam.cams(net, named, score, **options), together)
    for row in range(2):
        one = [tensor[row : row + 1] for tensor in (condition, picture, mask)]
        alone = mmcam.cams(net, tuple(one), score, **options)
        assert torch.allclose(alone[0], together[row])
    assert together.any()


@pytest.mark.parametrize("inputs", [torch.zeros(3, 4), [torch.zeros(3)], {"x": 5}, "photo.jpg"])
def test_inputs_without_a_picture_are_refused(inputs: Any) -> None:
    with pytest.raises(InputError, match="hold no tensor"):
        mmcam.cams(Net(), inputs, 1, "block")


def test_signals_of_one_axis() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    ).double()
    maps = mmcam.cams(net, noise(3, 2, 21), 1, "1", method="hirescam")
    assert torch.allclose(maps, net[:2](noise(3, 2, 21))[:, 1].detach() / 10)


def test_the_grid_is_the_inputs_even_if_the_module_transposes() -> None:
    class Transposing(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(2, 3))

    net, x = Transposing(), noise(1, 3, 8, 14)
    plain = Net.forward(net, x.transpose(2, 3))
    assert torch.equal(plain, net(x))
    maps = mmcam.cams(net, x, 1, "block")
    by_hand = gradcam_by_hand(net, x, lambda y: y[:, 1])
    assert torch.allclose(maps, by_hand.transpose(1, 2))


def test_a_given_grid() -> None:
    net, x = Net(), noise(1, 3, 8, 14)
    with pytest.warns(UserWarning, match="another order"):
        maps = mmcam.cams(net, x, 1, "block", grid=lambda name, tensor, space: tensor.flip(3))
    assert torch.allclose(maps, mmcam.cams(net, x, 1, "block").flip(2))


def test_layouts_are_proven_once_for_each_module_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[tuple[int, ...]] = []
    follow = proof.follow_layers

    def counted(adapter: Any, inputs: Any, layers: Sequence[str] | None = None) -> Any:
        traced.append(tuple(inputs.pixels.shape))
        return follow(adapter, inputs, layers)

    monkeypatch.setattr(proof, "follow_layers", counted)
    net = Net()
    for _ in range(3):
        mmcam.cams(net, noise(2, 3, 8, 8), 1, "block")
    assert len(traced) == 1
    mmcam.cams(net, noise(2, 3, 8, 10), 1, "block")
    assert len(traced) == 2
    net.stem = nn.Conv2d(3, 6, 3).double()
    assert mmcam.cams(net, noise(2, 3, 8, 8), 1, "block").shape == (2, 6, 6)
    assert len(traced) == 3


# In a training step


def training_step(explain: bool) -> tuple[dict[str, Tensor], list[Tensor], Tensor, Any]:
    """One step of training with dropout and batch norm; maps of it are taken in the middle."""
    torch.manual_seed(0)
    random.seed(0)
    net = Net().train()
    net.norm.eval()  # a part of the user's that is frozen
    net.stem.bias.requires_grad_(False)
    calls: list[str] = []
    net.block.register_forward_hook(lambda module, args, output: calls.append("hook"))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, labels = noise(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    for _ in range(3):
        optimizer.zero_grad()
        output = net(x)
        count = len(calls)
        if explain:
            for method in ("gradcam", "layercam", "gradient", "scorecam"):
                mmcam.cams(net, x, labels, net.block, method=method)
                with torch.no_grad():
                    mmcam.cams(net, x, labels, net.block, method=method)
        del calls[count:]
        loss = nn.functional.cross_entropy(output, labels) + net(x).square().mean()
        loss.backward()
        optimizer.step()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    modes = [(module.training, len(module._forward_hooks)) for module in net.modules()]
    flags = [p.requires_grad for p in net.parameters()]
    return net.state_dict(), gradients, torch.get_rng_state(), (modes, flags, x.grad, len(calls))


def test_maps_change_nothing_of_a_training_step() -> None:
    plain, explained = training_step(explain=False), training_step(explain=True)
    assert all(torch.equal(plain[0][key], explained[0][key]) for key in plain[0])
    assert len(plain[1]) == len(explained[1])
    assert all(map(torch.equal, plain[1], explained[1]))
    assert torch.equal(plain[2], explained[2])
    assert plain[3] == explained[3]


@pytest.mark.parametrize("method", DIFFERENTIABLE)
def test_differentiable_maps_equal_the_others_and_their_gradients_finite_differences(
    method: str,
) -> None:
    net, x = Net(), noise(2, 3, 6, 6).requires_grad_(True)
    weights = noise(*mmcam.cams(net, x, 1, "block", method=method).shape, seed=1)

    def loss(differentiable: bool = False) -> Tensor:
        maps = mmcam.cams(net, x, 1, "block", method=method, differentiable=differentiable)
        return (maps * weights).sum()

    value = loss(differentiable=True)
    assert torch.allclose(value, loss())
    value.backward()
    for tensor in (net.stem.weight, net.norm.weight, net.block[0].weight, net.head.weight, x):
        assert tensor.grad is not None
        position = int(tensor.grad.abs().argmax())
        step = 1e-6
        with torch.no_grad():
            entries = tensor.view(-1)
            before = entries[position].clone()
            entries[position] = before + step
            upper = loss()
            entries[position] = before - step
            lower = loss()
            entries[position] = before
        measured = (upper - lower) / (2 * step)
        assert torch.allclose(tensor.grad.view(-1)[position], measured, rtol=1e-4, atol=1e-8)


def test_a_loss_on_maps_trains_where_the_network_looks() -> None:
    net, x = Net().train(), noise(8, 3, 8, 8)
    outside = torch.zeros(4, 4, dtype=torch.bool)
    outside[:2] = True
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)

    def share(differentiable: bool) -> Tensor:
        maps = mmcam.cams(net, x, 1, net.block, method="elementwise", differentiable=differentiable)
        return maps[:, outside].sum() / (maps.sum() + 1e-3)

    before = float(share(False))
    for _ in range(50):
        optimizer.zero_grad()
        share(True).backward()
        optimizer.step()
    assert float(share(False)) < 0.5 * before
    assert net.training


def test_a_differentiable_map_leaves_the_module_as_it_was() -> None:
    net = Net().train()
    state = copy.deepcopy(net.state_dict())
    random_state = torch.get_rng_state()
    maps = mmcam.cams(net, noise(2, 3, 8, 8), 1, net.block, differentiable=True)
    assert maps.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(module.training for module in net.modules())
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.parametrize("method", ["scorecam", "guided", "guided-gradcam", "gradcam++softmax"])
def test_maps_without_a_graph_are_refused(method: str) -> None:
    with pytest.raises(MethodError, match=re.escape(f"'{method}' have no graph")):
        mmcam.cams(Net(), noise(1, 3, 8, 8), 1, "block", method=method, differentiable=True)


# What a call leaves behind, and what it keeps


class Tokens(nn.Module):
    """A class token, patches, and one transformer layer whose output is read at the class token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


def test_the_default_layer_has_a_gradient_for_any_kind_of_target() -> None:
    net, x = Tokens(), torch.randn(3, 3, 16, 16)
    numbers = torch.tensor([1, 4, 2])

    def scores(output: Tensor) -> Tensor:
        return output[torch.arange(3), numbers]

    by_number = mmcam.cams(net, x, numbers, method="hirescam")
    assert by_number.shape == (3, 4, 4)
    assert torch.equal(mmcam.cams(Tokens(), x, scores, method="hirescam"), by_number)
    top = mmcam.cams(Tokens(), x, None, method="hirescam")
    assert torch.equal(top, mmcam.cams(net, x, net.eval()(x).argmax(1), method="hirescam"))


def test_the_default_layer_is_found_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    first = mmcam.cams(net, noise(2, 3, 8, 8), 1)

    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr("mmcam.engine.tensors.default_layer", fail)
    assert torch.equal(mmcam.cams(net, noise(2, 3, 8, 8), 1), first)


@pytest.mark.parametrize("layers", [None, "lin", "b"])
def test_nothing_keeps_a_module_alive(layers: str | None) -> None:
    class Refusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Conv2d(3, 6, 3)
            self.lin = nn.Linear(6, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lin(self.b(x).mean((2, 3))[:, None])[:, 0])

        def own_grid(self, layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
            return tensor

    def used() -> Any:
        net = Refusing()
        try:
            mmcam.cams(net, torch.randn(1, 3, 8, 8), 1, layers)
        except LayerError:
            assert layers == "lin"
        mmcam.cams(net, torch.randn(1, 3, 8, 8), 1, "b", grid=net.own_grid)
        return weakref.ref(net)

    reference = used()
    gc.collect()
    assert reference() is None


def test_a_given_grid_is_compared_once_even_if_the_function_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, x = Net(), noise(1, 3, 8, 14)

    def flipped() -> Tensor:
        return mmcam.cams(net, x, 1, "block", grid=lambda name, tensor, space: tensor.flip(3))

    with pytest.warns(UserWarning, match="another order"):
        first = flipped()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(flipped(), first)


def test_a_module_that_changes_its_grid_is_not_drawn_by_the_old_one() -> None:
    net, x = Net(), noise(1, 3, 16, 16)
    mmcam.cams(net, x, 1, "block")
    net.stem.stride = (1, 1)
    with pytest.raises(LayerError, match="the model has changed"):
        mmcam.cams(net, x, 1, "block")


@pytest.mark.parametrize("words", [4, 6, 24])
def test_texts_of_other_lengths_beside_the_patches(words: int) -> None:
    """24 words and 16 patches are twice 4 words and 16 patches."""

    class OneStream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch = nn.Conv2d(3, 8, 8, 8)
            self.embed = nn.Embedding(10, 8)
            self.mix = nn.Linear(8, 8)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor, question: Tensor) -> Tensor:
            patches = self.patch(x).flatten(2).transpose(1, 2)
            tokens = self.mix(torch.cat([self.embed(question), patches], 1))
            return self.head(tokens.tanh().mean(1))

    net, x = OneStream(), torch.randn(1, 3, 32, 32)
    mmcam.cams(net, (x, torch.arange(4)[None]), 1, "mix")
    question = torch.arange(words)[None] % 10
    maps = mmcam.cams(net, (x, question), 1, "mix", method="hirescam")
    assert maps.shape == (1, 4, 4)
    fresh = mmcam.cams(OneStream(), (x, question), 1, "mix", method="hirescam")
    assert torch.equal(maps, fresh)


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("method", ["gradient", "gradcam"])
def test_the_users_tensors_are_not_changed(method: str, differentiable: bool) -> None:
    net, x = Net(), noise(2, 3, 8, 8)
    maps = mmcam.cams(net, x, 1, "block", method=method, differentiable=differentiable)
    assert not x.requires_grad
    with torch.inference_mode():
        frozen = noise(2, 3, 8, 8)
    again = mmcam.cams(net, frozen, 1, "block", method=method, differentiable=differentiable)
    assert torch.equal(maps, again)


def test_lists_with_a_row_per_sample() -> None:
    class Named(Net):
        def forward(self, x: Tensor, names: list[str]) -> Tensor:
            lengths = torch.tensor([len(name) for name in names], dtype=x.dtype)
            return super().forward(x) * lengths[:, None]

    net, x = Named(), noise(2, 3, 8, 8)
    maps = mmcam.cams(net, (x, ["a", "four"]), 1, "block")
    assert torch.allclose(maps[1], mmcam.cams(net, (x[1:], ["four"]), 1, "block")[0])


@pytest.mark.parametrize(
    ("module", "message"), [(mmcam.wrap(Net()), "give its `model`"), (abs, "no torch module")]
)
def test_what_is_no_module_is_refused(module: Any, message: str) -> None:
    unchecked = inspect.unwrap(mmcam.cams)  # without the check of types that tests have
    with pytest.raises(ModelError, match=message):
        unchecked(module, noise(1, 3, 8, 8), 1)


def test_integers_have_no_gradient_at_the_pixels() -> None:
    with pytest.raises(InputError, match=r"torch.uint8; give floats"):
        mmcam.cams(Net(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 1, method="gradient")


def test_a_module_of_integers_has_maps_at_its_layers() -> None:
    class Bytes(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.double() / 255)

    net = Bytes()
    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = mmcam.cams(Net(), x.double() / 255, 1, "block")
    assert torch.equal(mmcam.cams(net, x, 1, "block"), expected)
