from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.errors import InputError, LabelError, ModelError
from mmcam.grids import frame_weights
from mmcam.media import open_clip
from mmcam.media.windows import sample_window, window_spans
from mmcam.results.explanation import Explanation
from mmcam.types import Placement, Window

LABELS = ("run", "jump", "swim")
ALL = mmcam.Actions(LABELS)


class Tiny(nn.Module):
    """A seeded network of clips; fails at its `breaks`-th forward, counted from 1."""

    def __init__(self, breaks: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ReLU())
        self.trunk = nn.Sequential(nn.Conv3d(4, 5, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2))
        self.head = nn.Linear(5, 3)
        self.breaks, self.calls = breaks, 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.breaks:
            raise RuntimeError("half-way")
        logits: Tensor = 100 * self.head(self.trunk(self.first(pixels)).flatten(2).mean(2))
        return logits


class Shades(nn.Module):
    """How red, green and blue a clip is."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv3d(3, 3, 1, bias=False), nn.AvgPool3d(1))
        with torch.no_grad():
            self.trunk[0].weight.copy_(torch.eye(3).reshape(3, 3, 1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return 5 * self.trunk(pixels).flatten(2).mean(2)


def model(network: nn.Module | None = None, fps: float | None = None) -> Classifier:
    recipe = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), frames=4, fps=fps)
    return mmcam.wrap(network or Tiny(), prepare=recipe, layer="trunk", labels=LABELS)


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 8, 12, 3), dtype=np.uint8)


LENGTHS = st.one_of(
    st.floats(0.01, 500),
    st.builds(lambda frames, fps: frames * fps, st.integers(1, 64), st.floats(0.1, 3)),
)


@settings(deadline=None)
@given(frames=st.integers(1, 800), window=LENGTHS)
def test_windows_cover_the_clip_from_its_start_to_its_end(frames: int, window: float) -> None:
    windows = window_spans(frames, window)
    assert windows[0][0] == 0
    assert windows[-1][1] == frames
    for (start, end), (following, _) in pairwise(windows):
        assert start < following <= end
    weights = frame_weights(range(frames), Placement(size=(1, 1), box=(0, 0, 1, 1),
                            spans=tuple(windows)), len(windows))  # fmt: skip
    assert not weights.isnan().any()


@settings(deadline=None)
@given(frames=st.integers(1, 800), window=st.floats(1, 500))
def test_windows_have_their_length_unless_the_clip_is_shorter(frames: int, window: float) -> None:
    lengths = [end - start for start, end in window_spans(frames, window)]
    np.testing.assert_allclose(lengths, min(window, frames), rtol=1e-5)


@settings(deadline=None)
@given(frames=st.integers(1, 800), window=st.floats(1, 500))
def test_all_windows_but_the_last_lie_end_to_end(frames: int, window: float) -> None:
    windows = window_spans(frames, window)[:-1]
    assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]


@settings(deadline=None)
@given(frames=st.integers(1, 2000), windows=st.integers(1, 50), shift=st.floats(-1e-9, 1e-9))
def test_whole_windows_need_no_further_one(frames: int, windows: int, shift: float) -> None:
    windows = min(windows, frames)
    assert len(window_spans(frames, frames / windows + shift)) == windows


def test_thirds_need_no_further_window() -> None:
    # 80 / (16 * 2 * 25 / 30) is 3 but for rounding.
    assert len(window_spans(80, Window(frames=16, stride=2, fps=30).length(25))) == 3


@pytest.mark.parametrize(
    ("frames", "window", "expected"),
    [
        (1, 4, [(0, 1)]),
        (3, 4, [(0, 3)]),
        (4, 4, [(0, 4)]),
        (5, 4, [(0, 4), (1, 5)]),
        (8, 4, [(0, 4), (4, 8)]),
        (10, 4, [(0, 4), (4, 8), (6, 10)]),
        (6, 2.5, [(0, 2.5), (2.5, 5), (3.5, 6)]),
        (2, 0.25, [(0, 1), (1, 2)]),  # no window is shorter than a frame
    ],
)
def test_spans_by_hand(frames: int, window: float, expected: list[tuple[float, float]]) -> None:
    assert window_spans(frames, window) == expected


@pytest.mark.parametrize(
    ("span", "expected"),
    [((0, 8), [1, 3, 5, 7]), ((4, 8), [4, 5, 6, 7]), ((0, 1), [0] * 4), ((7.5, 9), [7, 8, 8, 8])],
)
def test_a_window_is_sampled_at_the_middles_of_its_parts(
    span: tuple[float, float], expected: list[int]
) -> None:
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    sample = sample_window(open_clip(frames), span, Window(frames=4))
    assert sample.pixels[:, 0, 0, 0].tolist() == expected
    assert sample.span == span


def test_a_long_clip_is_its_windows_explained_alone_and_joined() -> None:
    pixels = noise(10)
    joined = mmcam.explain(model(), pixels, ALL)
    by_window = [mmcam.explain(model(), pixels[a:b], ALL) for a, b in [(0, 4), (4, 8), (6, 10)]]
    for number, explanation in enumerate(joined):
        parts = [windows[number] for windows in by_window]
        torch.testing.assert_close(explanation.cam, torch.cat([part.cam for part in parts]))
        assert explanation.window_scores == pytest.approx([part.score for part in parts])
        assert explanation.score == pytest.approx(np.mean([part.score for part in parts]))
        assert explanation.probability == pytest.approx(
            np.mean([part.probability for part in parts])
        )
        assert explanation.placement.spans == ((0, 4), (4, 8), (6, 10))
        assert explanation.heatmap().shape == (10, 8, 12)


def test_frames_of_overlapping_windows_are_the_mean_of_both() -> None:
    pixels = noise(10)
    joined = mmcam.explain(model(), pixels, ALL)["swim"]

    def raw(explanation: Explanation, frames: list[int]) -> np.ndarray:
        return explanation.heatmap(frames) * explanation.maximum

    middle = mmcam.explain(model(), pixels[4:8], ALL)["swim"]
    last = mmcam.explain(model(), pixels[6:10], ALL)["swim"]
    assert joined.maximum > 0
    np.testing.assert_allclose(raw(joined, [4, 5]), raw(middle, [0, 1]), atol=1e-6)
    mean_of_both = (raw(middle, [2, 3]) + raw(last, [0, 1])) / 2
    np.testing.assert_allclose(raw(joined, [6, 7]), mean_of_both, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_clip_shorter_than_a_window_is_stretched_over_it(frames: int) -> None:
    pixels = noise(frames)
    explanation = mmcam.explain(model(), pixels, ALL)["run"]
    repeated = pixels[[int((i + 0.5) * frames / 4) for i in range(4)]]
    torch.testing.assert_close(explanation.cam, mmcam.explain(model(), repeated, ALL)["run"].cam)
    assert explanation.heatmap().shape == (frames, 8, 12)
    assert not np.isnan(explanation.heatmap()).any()


def test_a_models_own_rate_makes_windows_of_broken_length() -> None:
    explanation = mmcam.explain(model(fps=30.0), noise(10), ALL)[
        "run"
    ]  # 4 frames at 30 are 3.33 at 25
    thirds = [[0, 10 / 3], [10 / 3, 20 / 3], [20 / 3, 10]]
    np.testing.assert_allclose(explanation.placement.spans, thirds)
    assert explanation.cam.shape == (6, 4, 6)
    assert not np.isnan(explanation.heatmap()).any()


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_windows_in_batches_are_windows_one_by_one(batch: int) -> None:
    methods = ["gradcam", "hirescam", "gradient"]
    single = mmcam.explain(model(), noise(18), ALL, method=methods, batch=1)
    batched = mmcam.explain(model(), noise(18), ALL, method=methods, batch=batch)
    for single_map, batched_map in zip(single, batched, strict=True):
        torch.testing.assert_close(single_map.cam, batched_map.cam)
        assert single_map.window_scores == pytest.approx(batched_map.window_scores, abs=1e-5)
        assert single_map.placement == batched_map.placement


def test_targets_methods_and_layers_keep_their_order() -> None:
    maps = mmcam.explain(
        model(),
        noise(10),
        mmcam.Actions(["swim", "run"]),
        method=["guided-gradcam", "gradcam++", "gradcam"],
        layers=["first", "trunk"],
        guided=True,
    )
    assert [(e.label, e.method, e.layer) for e in maps] == [
        (label, method, layer)
        for label in ("swim", "run")
        for method in ("guided-gradcam", "gradcam++", "gradcam", "guided-gradcam++")
        for layer in ("first", "trunk")
    ]
    assert maps.select("run", "gradcam", "first")[0].cam.shape == (12, 8, 12)
    assert maps.select("run", "guided-gradcam", "trunk")[0].cam.shape == (3, 12, 8, 12)


def test_top_labels_are_chosen_over_the_whole_clip() -> None:
    pixels = np.zeros((12, 8, 12, 3), np.uint8)
    pixels[:4, ..., 0] = 255  # the first window is red, those after it are green
    pixels[4:, ..., 1] = 255
    maps = mmcam.explain(model(Shades()), pixels, mmcam.Actions(top=2))
    assert [explanation.label for explanation in maps] == ["jump", "run"]
    assert maps["jump"].window_scores == pytest.approx([0, 5, 5])


def test_more_top_labels_than_there_are_is_refused() -> None:
    with pytest.raises(LabelError, match=r"top=4 is more than the 3 classes"):
        mmcam.explain(model(), noise(4), mmcam.Actions(top=4))


def test_progress_counts_windows() -> None:
    calls: list[tuple[int, int]] = []
    mmcam.explain(
        model(), noise(10), ALL, batch=2, progress=lambda done, all_: calls.append((done, all_))
    )
    assert calls == [(2, 3), (3, 3)]


def test_a_window_that_fails_half_way_is_told_and_leaves_the_model_as_it_was() -> None:
    network = Tiny(breaks=3).train()
    with pytest.raises(ModelError, match="half-way"):
        mmcam.explain(model(network), noise(12), ALL, batch=1)
    assert network.calls == 3
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_counterfactual_clips_show_the_opposite() -> None:
    maps = mmcam.explain(model(Shades()), noise(8), mmcam.Actions(["run"]), counterfactual=True)
    plain = mmcam.explain(model(Shades()), noise(8), mmcam.Actions(["run"]))
    assert maps[0].counterfactual
    assert maps[0].score == pytest.approx(plain[0].score)
    assert plain[0].maximum > 0
    assert maps[0].empty


def test_a_model_of_pictures_refuses_a_clip() -> None:
    from mmcam.engine.clips import explain_clip
    from mmcam.methods.plan import Plan
    from tests.colour_net import model as colour_model

    with pytest.raises(InputError, match=r"'array' is a clip and .* choose a video model"):
        explain_clip(
            colour_model(clips=False), open_clip(noise(4)), ALL, Plan.of(["gradcam"], False)
        )
