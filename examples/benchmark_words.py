"""All words of a caption, explained: mmcam beside the bare forward and beside other tools.

    pip install "mmcam[bench]"                # the other tools; missing ones are left out
    python examples/benchmark_words.py        # everything, some minutes on two cores
    python examples/benchmark_words.py --models resnet50 --rounds 5 --json words.json
    python examples/benchmark_words.py --quick

Subjects are captioners with random weights: a CNN of torchvision under an LSTM (Show-and-Tell; 512
units, 10,000 words). The caption, of twelve words, is given; the question is a Grad-CAM map at the
CNN's last layer for each of its words. Every tool gets the same pixels and a copy of the model of
its own. Rows:

- bare forward: the teacher-forced forward under `torch.inference_mode()`.
- mmcam: tensors in, one raw map a word out, by each of the three ways to take many gradients.
- mmcam.explain: the one-line call from an 8-bit array: preprocessing, the sentence and its words,
  probabilities, `Explanations`.
- captum, torch-cam, grad-cam: what their users write by hand, one word at a time.

Time is measured as in `benchmark.py`: rounds in an order drawn anew, medians of the ratios to the
bare forward of the same round. "agrees" says that all maps equal ours, in the form that the tool
returns, to 0.1 % of the largest value.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from benchmark import TOLERANCE, difference, environment, times
from benchmark_tools import BARE, Run, _min_max, blobs
from torch import Tensor, nn

import mmcam
from mmcam.adapters.captioner import RecurrentCaptioner
from mmcam.adapters.networks.cnn import halves, width
from mmcam.adapters.networks.show_and_tell import ShowAndTell
from mmcam.adapters.preprocess import Preprocess
from mmcam.adapters.vocabulary import Vocabulary
from mmcam.capture import WAYS, capture
from mmcam.grids import resize
from mmcam.methods import grad_cam
from mmcam.types import Inputs

VOCABULARY, CAPTION, SIDE = 10_000, 12, 224
WORDS = ("<pad>", "<start>", "<end>", "<unk>", *(f"w{n}" for n in range(4, VOCABULARY)))
SUBJECTS = {
    "vgg16": ("features", 1.4),
    "resnet50": ("layer4", 1.4),
    "mobilenet_v2": ("features", 2.0),
    "small": ("features", None),
}
"""CNN -> the layer its map is taken at, and the bar that mmcam is held to (x the bare forward)."""


@dataclass(frozen=True)
class Row:
    """One tool on one captioner."""

    model: str
    tool: str
    status: str
    time_ms: float
    time_ratio: float
    bar: float | None = None


@dataclass(frozen=True)
class Case:
    """A captioner, a picture and a caption."""

    adapter: RecurrentCaptioner
    array: np.ndarray
    text: str

    @property
    def task(self) -> mmcam.Caption:
        """The caption and all its words."""
        return mmcam.Caption(self.text)

    @property
    def inputs(self) -> Inputs:
        """The pixels and tokens, ready for the model."""
        sample = mmcam.Sample(pixels=self.array)
        return self.adapter.prepare([sample], self.task)

    def fresh(self) -> Case:
        """The same question to a copy of the model."""
        adapter = copy.copy(self.adapter)
        adapter.model = copy.deepcopy(adapter.model)
        return Case(adapter, self.array, self.text)


def build(name: str) -> Case:
    """A captioner with random weights, a picture, and a caption of words drawn at random."""
    import torchvision

    torch.manual_seed(0)
    layer, bar = SUBJECTS[name]
    if bar is None:  # small: two convolutions
        trunk: nn.Module = nn.Sequential(nn.Conv2d(3, 16, 7, 8), nn.ReLU(), nn.Conv2d(16, 32, 3))
        head: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    else:
        trunk, head = halves(torchvision.models.get_model(name, weights=None), layer, name)
    _, features = width(trunk, head, SIDE)
    adapter = RecurrentCaptioner(
        name=name,
        model=ShowAndTell(trunk, head, features, VOCABULARY).eval(),
        preprocess=Preprocess(),
        language=Vocabulary(WORDS),
        layers=("cnn",),
    )
    words = np.random.default_rng(0).choice(WORDS[4:], CAPTION, replace=False)
    return Case(adapter, blobs(1, (SIDE, SIDE))[0], " ".join(words))


def words_of(case: Case, way: str, inputs: Inputs | None = None) -> Tensor:
    """Our engine with tensors ready: the maps of all words, `[word, height, width]`."""
    inputs = inputs or case.inputs
    adapter = case.adapter
    copies = CAPTION if way == "fan-out" else 1
    with capture(adapter.model, ["cnn"], copies=copies) as (recording, check):
        output = adapter.forward(inputs)
        check()
        targets = [
            target for target in adapter.targets(output, case.task)[0] if target.kind == "word"
        ]
        scores = recording.scores(output, [targets])
        activation = recording.activation("cnn")
        return torch.cat(
            [
                grad_cam(activation, gradients["cnn"])
                for gradients in recording.gradients(scores, way=way, last=True)
            ]
        )


class Forced(nn.Module):
    """The captioner with its caption built in: pictures in, logits `[batch, step * token]` out."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.net = case.adapter.model
        self.tokens = torch.tensor([case.inputs.rest["sentences"][0].tokens])

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits of every token at every step, in one row."""
        logits: Tensor = self.net(pixels, self.tokens)
        return logits.flatten(1)

    @property
    def indices(self) -> list[int]:
        """Where each word's logit stands in a row."""
        return [k * VOCABULARY + int(token) for k, token in enumerate(self.tokens[0, :CAPTION])]


def bare(case: Case) -> Run:
    """Inference and nothing else."""
    pixels, forced = case.inputs.pixels, Forced(case)

    def run() -> Tensor:
        with torch.inference_mode():
            output: Tensor = forced(pixels)
        return output

    return run


def by_way(way: str) -> Callable[[Case], Run]:
    """Tensors in, raw maps out, gradients taken in one of the ways."""

    def make(case: Case) -> Run:
        inputs = case.inputs
        return lambda: words_of(case, way, inputs)

    return make


def explain(case: Case) -> Run:
    """The one-line call."""

    def run() -> Tensor:
        maps = mmcam.explain(case.adapter, case.array, case.task)
        return torch.stack([one.cam for one in maps if one.target.kind == "word"])

    return run


def captum(case: Case) -> Run:
    """Captum's LayerGradCam, word by word."""
    from captum.attr import LayerGradCam

    forced, pixels = Forced(case), case.inputs.pixels
    extractor = LayerGradCam(forced, forced.net.cnn)

    def run() -> Tensor:
        made = [
            extractor.attribute(pixels, target=index, relu_attributions=True).detach()[:, 0]
            for index in forced.indices
        ]
        return torch.cat(made)

    return run


def torchcam(case: Case) -> Run:
    """torch-cam's GradCAM, word by word, over one forward that it retains."""
    from torchcam.methods import GradCAM

    forced, pixels = Forced(case), case.inputs.pixels
    extractor = GradCAM(forced, "net.cnn")

    def run() -> Tensor:
        scores = forced(pixels)
        made = [
            extractor(index, scores, normalized=False, retain_graph=True)[0]
            for index in forced.indices
        ]
        return torch.cat(made)

    return run


def gradcam(case: Case) -> Run:
    """grad-cam's GradCAM, word by word; it scales to [0, 1] and to the input's size."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    forced, pixels = Forced(case), case.inputs.pixels
    extractor = GradCAM(forced, [forced.net.cnn])

    def run() -> Tensor:
        made = [
            torch.from_numpy(extractor(pixels, [ClassifierOutputTarget(index)]))
            for index in forced.indices
        ]
        return torch.cat(made)

    return run


def raw(maps: Tensor) -> Tensor:
    """Maps as they are."""
    return maps


def scaled(maps: Tensor) -> Tensor:
    """Maps as grad-cam shows them."""
    return _min_max(resize(_min_max(maps), (SIDE, SIDE)))


TOOLS: dict[str, tuple[Callable[[Case], Run], Callable[[Tensor], Tensor] | None, str]] = {
    BARE: (bare, None, "torch"),
    **{f"mmcam ({way})": (by_way(way), raw, "torch") for way in WAYS},
    "mmcam.explain": (explain, raw, "torch"),
    "captum": (captum, raw, "captum"),
    "torch-cam": (torchcam, raw, "torchcam"),
    "grad-cam": (gradcam, scaled, "pytorch_grad_cam"),
}
"""Tool -> how it is made ready, the form of its maps (None: a baseline), and its package."""


def compare(model: str, rounds: int) -> list[Row]:
    """All tools on one captioner."""
    case = build(model)
    reference = words_of(case, "loop")
    runs: dict[str, Run] = {}
    states: dict[str, str] = {}
    for name, (make, form, package) in TOOLS.items():
        if importlib.util.find_spec(package) is None:
            continue
        runs[name] = make(case.fresh())
        made = runs[name]()
        share = 0.0 if form is None else difference(made, form(reference))
        agrees = "agrees" if share < TOLERANCE else f"differs by {share:.2g}"
        states[name] = "baseline" if form is None else agrees
    columns = times(runs, rounds, "cpu")
    bar = SUBJECTS[model][1]
    return [
        Row(
            model,
            name,
            states[name],
            columns[name]["time_ms"],
            columns[name]["time_ratio"],
            bar if name == "mmcam.explain" else None,
        )
        for name in runs
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows of one captioner, as text."""
    lines = [f"\n{rows[0].model} + LSTM, {CAPTION} words", f"{'':<17}{'ms':>9}{'t/bare':>8}"]
    for row in rows:
        verdict = ""
        if row.bar is not None:
            passed = "PASS" if round(row.time_ratio, 2) <= row.bar else "over"
            verdict = f" [t/bare {row.bar:.2f} {passed}]"
        lines.append(
            f"{row.tool:<17}{row.time_ms:>9.1f}{row.time_ratio:>8.2f}  {row.status}{verdict}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    large = [name for name, (_, bar) in SUBJECTS.items() if bar]
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=large)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small captioner, 2 rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows there")
    settings = parser.parse_args()
    if settings.quick:
        settings.models, settings.rounds = ["small"], 2
    rows: list[Row] = []
    for model in settings.models:
        found = compare(model, settings.rounds)
        print(table(found), flush=True)
        rows += found
    if settings.json:
        content = {"environment": environment("cpu"), "rows": [asdict(row) for row in rows]}
        settings.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
