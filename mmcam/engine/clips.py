"""Clips of any length: cut into the model's windows, explained one by one, joined in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from mmcam.capture.model_state import untouched
from mmcam.engine.pictures import explain_samples
from mmcam.errors import InputError
from mmcam.media import Clip
from mmcam.media.windows import sample_window, spans
from mmcam.methods.plan import Plan
from mmcam.results.explanation import Explanation
from mmcam.tasks import Classes
from mmcam.types import Adapter

Progress = Callable[[int, int], None]
"""Called with (windows done, windows in all)."""

VIEWS = 10
"""Over how many windows the top labels of a clip are chosen."""


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
    """Every window of a clip explained, and the windows of each target joined along time.

    The clip is read once, in order, `batch` windows at a time. Where the task names no labels, the
    top ones are chosen first, by the mean probability over at most `VIEWS` windows spread over it.

    Raises:
        MmcamError: of any kind; InputError where the model is none of clips.
    """
    if adapter.window is None:
        raise InputError(
            f"'{clip.path}' is a clip and {adapter.name} is a model of pictures; choose a video "
            "model (mmcam list models)"
        )
    stretches = spans(clip.frames, adapter.window.length(clip.fps))
    if isinstance(task, Classes) and task.labels is None:
        task = replace(task, labels=_top_labels(adapter, clip, stretches, task))
    films: list[_Film] = []
    for number in range(0, len(stretches), batch):
        some = stretches[number : number + batch]
        samples = [sample_window(clip, span, adapter.window) for span in some]
        for place, found in enumerate(
            explain_samples(adapter, samples, task, plan, layers, counterfactual=counterfactual),
            start=number,
        ):
            made = found.explanations
            films = films or [_Film(explanation, len(stretches)) for explanation in made]
            for film, explanation in zip(films, made, strict=True):
                film.put(place, explanation)
        if progress:
            progress(number + len(some), len(stretches))
    return [film.whole() for film in films]


def _top_labels(
    adapter: Adapter, clip: Clip, stretches: Sequence[tuple[float, float]], task: Classes
) -> list[int] | None:
    """The classes with the highest mean probability over windows spread evenly over the clip."""
    count = min(VIEWS, len(stretches))
    chosen = [stretches[(2 * i + 1) * len(stretches) // (2 * count)] for i in range(count)]
    mean = torch.stack(list(_probabilities(adapter, clip, chosen, task))).mean(0)
    if task.top > len(mean):
        return None  # more than there are: the adapter's to refuse
    return [int(index) for index in mean.topk(task.top).indices]


def _probabilities(
    adapter: Adapter, clip: Clip, stretches: Sequence[tuple[float, float]], task: Classes
) -> Iterator[torch.Tensor]:
    assert adapter.window is not None
    for span in stretches:
        inputs = adapter.prepare([sample_window(clip, span, adapter.window)], task)
        with untouched(adapter.model), torch.no_grad():
            yield adapter.logits(adapter.forward(inputs))[0].float().softmax(0)


class _Film:
    """One target's explanation of a whole clip, put together window by window.

    The map of the clip is made at once: small maps that are kept between the large tensors of each
    window would leave holes in the memory, which grows with every window then.
    """

    def __init__(self, first: Explanation, windows: int) -> None:
        self.first = first
        self.axis = 1 if first.has_colours else 0
        self.slices = first.cam.shape[self.axis]
        shape = list(first.cam.shape)
        shape[self.axis] *= windows
        self.cam = first.cam.new_zeros(shape, device="cpu")
        self.scores: list[float] = []
        self.probabilities: list[float] = []
        self.spans: list[tuple[float, float]] = []

    def put(self, place: int, window: Explanation) -> None:
        """Add the window at `place`; windows come in order."""
        start = place * self.slices
        self.cam.narrow(self.axis, start, self.slices).copy_(window.cam)
        self.scores.append(window.score)
        self.spans += window.placement.spans
        if window.probability is not None:
            self.probabilities.append(window.probability)

    def whole(self) -> Explanation:
        """The explanation of the clip; its score and probability are means over the windows."""
        shares = self.probabilities
        return replace(
            self.first,
            cam=self.cam,
            score=sum(self.scores) / len(self.scores),
            probability=sum(shares) / len(shares) if shares else None,
            placement=replace(self.first.placement, spans=tuple(self.spans)),
            window_scores=tuple(self.scores),
        )
