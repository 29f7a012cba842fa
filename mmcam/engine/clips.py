"""Explain clips of any length: split a clip into windows, explain each, join the maps in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from mmcam.capture.forward import run_model
from mmcam.capture.model_state import untouched
from mmcam.engine.pictures import explain_samples
from mmcam.errors import InputError
from mmcam.media import Clip
from mmcam.media.windows import sample_window, window_spans
from mmcam.methods.plan import Plan
from mmcam.results.explanation import Explanation
from mmcam.tasks import Classes
from mmcam.types import Adapter

Progress = Callable[[int, int], None]
"""Called with (windows done, windows in all)."""

VIEWS = 10
"""The maximum number of windows from which the top labels of a clip are chosen."""


def explain_clip(
    adapter: Adapter,
    clip: Clip,
    task: Any,
    plan: Plan,
    layers: Sequence[str] | None = None,
    *,
    counterfactual: bool = False,
    batch: int = 1,
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain every window of a clip, and join the windows of each target along time.

    The windows are read in order, `batch` at a time. If the task is `Classes` without labels, the
    top labels are chosen first, by the mean probability (the mean logit, if the model has no
    probabilities) over at most `VIEWS` evenly spaced windows.

    Raises:
        MmcamError: any of its subclasses; InputError if the model is not a video model.
    """
    if adapter.window is None:
        raise InputError(
            f"'{clip.path}' is a clip and {adapter.name} is a model of pictures; choose a video "
            "model (mmcam list models)"
        )
    windows = window_spans(clip.frames, adapter.window.length(clip.fps))
    if isinstance(task, Classes) and task.labels is None:
        task = replace(task, labels=_top_labels(adapter, clip, windows, task))
    accumulators: list[_ClipAccumulator] = []
    for start in range(0, len(windows), batch):
        batch_spans = windows[start : start + batch]
        samples = [sample_window(clip, span, adapter.window) for span in batch_spans]
        for index, result in enumerate(
            explain_samples(adapter, samples, task, plan, layers, counterfactual=counterfactual),
            start=start,
        ):
            if not accumulators:  # the first window
                accumulators = [_ClipAccumulator(e, len(windows)) for e in result.explanations]
            for accumulator, explanation in zip(accumulators, result.explanations, strict=True):
                accumulator.add(index, explanation)
        if progress:
            progress(start + len(batch_spans), len(windows))
    return [accumulator.result() for accumulator in accumulators]


def _top_labels(
    adapter: Adapter, clip: Clip, windows: Sequence[tuple[float, float]], task: Classes
) -> list[int] | None:
    """The classes with the highest mean probability over windows spread evenly over the clip.

    None if the model has fewer than `task.top` classes.
    """
    count = min(VIEWS, len(windows))
    # The middle window of each of `count` equal parts of the clip.
    views = [windows[(2 * i + 1) * len(windows) // (2 * count)] for i in range(count)]
    mean = torch.stack(list(_probabilities(adapter, clip, views, task))).mean(0)
    if task.top > len(mean):
        return None  # the adapter refuses a `top` above the number of classes
    return [int(index) for index in mean.topk(task.top).indices]


def _probabilities(
    adapter: Adapter, clip: Clip, windows: Sequence[tuple[float, float]], task: Classes
) -> Iterator[torch.Tensor]:
    """The probabilities of all classes in each window; the logits if the model has none."""
    assert adapter.window is not None
    for span in windows:
        inputs = adapter.prepare([sample_window(clip, span, adapter.window)], task)
        with untouched(adapter.model), torch.no_grad():
            output = run_model(adapter, inputs)
            log_probs = adapter.log_probs(output)
            yield adapter.logits(output)[0].float() if log_probs is None else log_probs[0].exp()


class _ClipAccumulator:
    """Collects the explanation of a whole clip by one target, method and layer, window by window.

    The map of the whole clip is allocated at the start: small maps kept between the large tensors
    of each window would fragment the memory, so that memory use would grow with every window.
    """

    def __init__(self, first: Explanation, windows: int) -> None:
        self.first = first
        self.time_axis = 1 if first.is_pixel_space else 0  # the channels come first in pixel space
        self.slices = first.cam.shape[self.time_axis]
        shape = list(first.cam.shape)
        shape[self.time_axis] *= windows
        self.cam = first.cam.new_zeros(shape, device="cpu")
        self.scores: list[float] = []
        self.probabilities: list[float] = []
        self.spans: list[tuple[float, float]] = []

    def add(self, index: int, window: Explanation) -> None:
        """Add the explanation of the window `index`; windows must come in order."""
        start = index * self.slices
        self.cam.narrow(self.time_axis, start, self.slices).copy_(window.cam)
        self.scores.append(window.score)
        self.spans += window.placement.spans
        if window.probability is not None:
            self.probabilities.append(window.probability)

    def result(self) -> Explanation:
        """The explanation of the clip; its score and probability are means over the windows."""
        probabilities = self.probabilities
        return replace(
            self.first,
            cam=self.cam,
            score=sum(self.scores) / len(self.scores),
            probability=sum(probabilities) / len(probabilities) if probabilities else None,
            placement=replace(self.first.placement, spans=tuple(self.spans)),
            window_scores=tuple(self.scores),
        )
