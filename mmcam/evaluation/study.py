"""The settings of a run: the task, the methods, the metrics, and how they are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mmcam.datasets.items import Item
from mmcam.errors import EvaluationError, MethodError, ModelError, nearest
from mmcam.evaluators import EVALUATORS
from mmcam.evaluators.localization import LOC_THRESHOLDS
from mmcam.methods import METHODS
from mmcam.methods.plan import Plan
from mmcam.tasks import Actions, Answers, Caption, Classes
from mmcam.types import Adapter

TASKS: dict[str, Callable[..., Any]] = {
    task.name: task for task in (Classes, Actions, Caption, Answers)
}
"""The tasks by name."""

BASELINES = ("uniform", "centre", "random", "activation")
"""Maps that do not depend on the score: uniform, a Gaussian at the centre, noise with a seed from
the item's id, and the layer's activation summed over its channels."""

TARGETS = ("given", "predicted")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of numbers in the rows: its name and its meaning.

    `gives` is a "number", a "truth" (0 or 1) or a "curve". The points of a curve are in the column
    `NAME.curve`, its area (or mean) in `NAME`.
    """

    name: str
    metric: str
    gives: str
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Study:
    """The settings that apply to every item of a run.

    Args:
        metrics: names of `mmcam.EVALUATORS`.
        task: `Classes()`, `Actions()`, `Caption()` or `Answers()`; labels, a text, a question or
            answers given there are used for every item.
        methods: names of `mmcam.METHODS`, and products (`guided-gradcam`).
        baselines: names of `BASELINES`, evaluated like the methods.
        layers: as in `mmcam.explain`.
        target: "given" explains each item's own labels or caption, or the model's prediction if the
            item has none; "predicted" always explains the model's prediction.
        steps: the number of steps of deletion and insertion.
        threshold: the threshold of `pointing-or-rejecting`, in units of the raw map.
        batch: the number of items, or of perturbed pictures of an item, per forward pass; the
            adapter's default if None.
        amp: run under torch's autocast in bfloat16.

    Raises:
        EvaluationError: no metric, an unknown metric or baseline, a name given twice, or settings
            that are invalid or do not fit together.
        MethodError: an unknown method, or no method.
    """

    metrics: tuple[str, ...]
    task: Any
    methods: tuple[str, ...] = ("gradcam",)
    baselines: tuple[str, ...] = ()
    layers: tuple[str, ...] | None = None
    target: str = "given"
    steps: int = 224
    threshold: float | None = None
    batch: int | None = None
    amp: bool = False

    def __post_init__(self) -> None:
        for kind, names, known in (
            ("evaluator", self.metrics, tuple(EVALUATORS)),
            ("baseline", self.baselines, BASELINES),
        ):
            for name in names:
                if name not in known:
                    raise EvaluationError(
                        f"there is no {kind} '{name}'; nearest: {nearest(name, known)}"
                    )
        if not self.metrics:
            raise EvaluationError(f"no metric in []; name one or more of {', '.join(EVALUATORS)}")
        if not self.methods:
            raise MethodError("no methods in []; name one or more (mmcam list methods)")
        Plan.of(self.methods, False)
        repeated = {n for n in self.series if self.series.count(n) > 1} | {
            n for n in self.metrics if self.metrics.count(n) > 1
        }
        if repeated:
            raise EvaluationError(f"{', '.join(sorted(repeated))} named twice; once is enough")
        if self.target not in TARGETS:
            raise EvaluationError(
                f"target='{self.target}' is unknown; choose {' or '.join(TARGETS)}"
            )
        if self.steps < 1 or (self.batch is not None and self.batch < 1):
            raise EvaluationError(f"steps={self.steps}, batch={self.batch}: both must be 1 or more")
        self._check_metrics()

    def _check_metrics(self) -> None:
        """Check that the settings meet the requirements of each metric.

        Raises:
            EvaluationError: a metric lacks predictions, a threshold, a second method or classes.
        """
        predicts = isinstance(self.task, Classes) and self.task.labels is None
        for name in {"localization-error", "pointing-or-rejecting"} & set(self.metrics):
            if self.target != "predicted" or not predicts:
                raise EvaluationError(
                    f"{name} evaluates the labels that the model predicts; use the task classes "
                    "with target predicted (and top 5 for the top-5 error)"
                )
        if "pointing-or-rejecting" in self.metrics and self.threshold is None:
            raise EvaluationError(
                "pointing-or-rejecting needs a threshold in units of the raw map; choose one on "
                "other items (evaluators.pointing.rejection_threshold)"
            )
        if "win" in self.metrics and len(self.series) < 2:
            raise EvaluationError("win compares methods; name two or more")
        if "label-randomization" in self.metrics and not isinstance(self.task, Classes):
            raise EvaluationError(
                "label-randomization draws another label; use the task classes or actions"
            )

    @property
    def series(self) -> tuple[str, ...]:
        """The names of all evaluated maps: methods, then baselines."""
        return (*self.methods, *self.baselines)

    @property
    def plan(self) -> Plan:
        """The maps that the engine computes and the metrics evaluate."""
        return Plan.of(
            [*self.methods, *(name for name in self.baselines if name in METHODS)], False
        )

    @property
    def full_plan(self) -> Plan:
        """`plan`, and the reference maps (occlusion) that metrics compare the maps with."""
        references = ["occlusion"] if "occlusion-correlation" in self.metrics else []
        return Plan.of([*self.plan.names, *references], False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The number columns that the metrics fill, in order."""
        return tuple(
            Column(
                name=name,
                metric=metric,
                gives="curve" if EVALUATORS[metric].gives == "layers" else EVALUATORS[metric].gives,
                higher_is_better=EVALUATORS[metric].higher_is_better,
            )
            for metric in self.metrics
            for name in self._column_names(metric)
        )

    def _column_names(self, metric: str) -> list[str]:
        if metric == "loc":
            return [f"loc@{threshold:g}" for threshold in LOC_THRESHOLDS]
        if metric == "win":
            return [f"win over {name}" for name in self.series]
        return [metric]

    def task_of(self, item: Item) -> Any:
        """The task of one item, with the item's labels if they are the targets."""
        task, has_labels = self.task, self.target == "given" and bool(item.labels)
        if has_labels and isinstance(task, Classes) and task.labels is None:
            return replace(task, labels=tuple(dict.fromkeys(item.labels)))
        if has_labels and isinstance(task, Answers) and task.answers is None:
            return replace(task, answers=tuple(dict.fromkeys(map(str, item.labels))))
        return task

    def text_of(self, item: Item) -> str:
        """The question, or the caption to explain; empty if the model generates the caption."""
        generates = isinstance(self.task, Caption) and self.target == "predicted"
        return "" if generates else item.text

    def check_model(self, adapter: Adapter) -> None:
        """Check that the model supports the task.

        Raises:
            ModelError: the task is actions and the model is an image model.
        """
        if isinstance(self.task, Actions) and adapter.window is None:
            raise ModelError(
                f"{adapter.name} is an image model and actions need clips; choose a video model "
                "(mmcam list models), or use the task classes"
            )
