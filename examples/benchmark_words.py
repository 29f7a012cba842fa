"""All words of a caption, or many answers: time of mmcam, the bare forward and other tools.

    pip install "mmcam[bench]"                # the other tools; missing ones are skipped
    python examples/benchmark_words.py        # everything, a few minutes on two cores
    python examples/benchmark_words.py --subjects resnet50-words --rounds 5 --json words.json
    python examples/benchmark_words.py --quick

The subjects are networks with random weights and a CNN of torchvision. "words": Show-and-Tell with
one LSTM of 512 units and 10,000 words; the caption has twelve given words, and the Grad-CAM map of
each is computed at the CNN's last layer. "answers": the network of Lu et al. 2015, with two LSTMs
and 1,000 answers, of which ten are explained. Every tool gets the same pixels and its own copy of
the model. Rows:

- bare forward: the forward under `torch.inference_mode()`; a caption is teacher-forced.
- mmcam: tensors in, one raw map per word out, by each strategy for the gradients of many scores.
- mmcam.explain: the one-line call from an 8-bit array: preprocessing, the sentence and its words,
  or the answers and the attributions of the question's words; probabilities, `Explanations`.
- captum, torch-cam, grad-cam: the code that their users write by hand, one map at a time.

Time is measured as in `benchmark.py`: rounds in random order, medians of the ratios to the bare
forward of the same round. "agrees" means that all maps equal mmcam's, converted to the form that
the tool returns, to 0.1 % of the maximum value.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark import TOLERANCE, difference, environment, times
from benchmark_tools import BARE, Run, _min_max, blobs
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.base.recurrent_captioner import RecurrentCaptioner
from mmcam.adapters.base.vocabulary import QuestionTokenizer, Vocabulary
from mmcam.adapters.networks.cnn import feature_sizes, split_cnn
from mmcam.adapters.networks.lstm_vqa import LstmVqa
from mmcam.adapters.networks.show_and_tell import ShowAndTell
from mmcam.capture.recording import GRADIENT_STRATEGIES, capture
from mmcam.grids import resize
from mmcam.methods.cams import grad_cam
from mmcam.models import registry as models
from mmcam.types import Inputs

VOCABULARY, CAPTION, ANSWERS, SIDE = 10_000, 12, 10, 224
WORDS = ("<pad>", "<start>", "<end>", "<unk>", *(f"w{n}" for n in range(4, VOCABULARY)))
QUESTION = "w4 w5 w6 w7 w8 w9 w10 w11"
SUBJECTS = {
    "vgg16-words": 1.4,
    "resnet50-words": 1.4,
    "mobilenet_v2-words": 2.0,
    "vgg16-answers": 1.4,
    "resnet50-answers": 1.4,
    "blip_base-words": 2.6,
    "small-words": None,
    "small-answers": None,
}
"""CNN and task -> the limit for mmcam's time, as a multiple of the bare forward.

The limit also holds for `mmcam.explain`, which explains more than the words or answers."""

LAYERS = {"vgg16": "features", "resnet50": "layer4", "mobilenet_v2": "features"}
TOKENS = "vision_model"
"""The explained layer of BLIP, whose output the decoder attends to."""


@dataclass(frozen=True)
class Row:
    """The result of one tool on one model."""

    model: str
    tool: str
    status: str
    time_ms: float
    time_ratio: float
    bar: float | None = None


@dataclass(frozen=True)
class Case:
    """A model, a picture and a task."""

    adapter: Any
    array: np.ndarray
    task: Any
    layer: str = "cnn"

    @property
    def count(self) -> int:
        """The number of requested maps, without that of the sentence."""
        if isinstance(self.task, mmcam.Answers):
            return len(self.task.answers or ())
        return len(self.inputs.rest["sentences"][0].words)

    @property
    def is_blip(self) -> bool:
        """Whether the model is BLIP, whose maps are made of tokens."""
        return self.layer == TOKENS

    @property
    def inputs(self) -> Inputs:
        """The prepared pixels and tokens."""
        return self.adapter.prepare([mmcam.Sample(pixels=self.array)], self.task)

    def fresh(self) -> Case:
        """The same case with a copy of the model."""
        adapter = copy.copy(self.adapter)
        adapter.model = copy.deepcopy(adapter.model)
        return replace(self, adapter=adapter)


def blip() -> Case:
    """BLIP-base at 224 pixels with random weights, and a caption of eleven words."""
    from transformers import BertTokenizerFast, BlipImageProcessor, BlipProcessor

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[4:]]
    words += [f"[unused{n}]" for n in range(30_523 - len(words))] + ["[DEC]"]
    with tempfile.TemporaryDirectory() as folder:
        size = {"height": SIDE, "width": SIDE}
        tokenizer = BertTokenizerFast({word: n for n, word in enumerate(words)})
        BlipProcessor(BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
        text = {"vocab_size": len(words), "bos_token_id": len(words) - 1, "sep_token_id": 3}
        args = {
            "processor": folder,
            "vision_config": {"image_size": SIDE},
            "text_config": {**text, "eos_token_id": 3, "pad_token_id": 0},
        }
        adapter = models.build(Recipe(family="hf", name="blip", args=args, pretrained=False))
    adapter.layers = (TOKENS,)
    caption = np.random.default_rng(0).choice(WORDS[4:], CAPTION - 1, replace=False)
    return Case(adapter, blobs(1, (SIDE, SIDE))[0], mmcam.Caption(" ".join(caption)), TOKENS)


def build(subject: str) -> Case:
    """A model with random weights, a random picture, and random words or fixed answers."""
    import torchvision

    torch.manual_seed(0)
    name, kind = subject.split("-")
    if name == "blip_base":
        return blip()
    if name == "small":
        trunk: nn.Module = nn.Sequential(nn.Conv2d(3, 16, 7, 8), nn.ReLU(), nn.Conv2d(16, 32, 3))
        head: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    else:
        net = torchvision.models.get_model(name, weights=None)
        trunk, head = split_cnn(net, LAYERS[name], name)
    _, features = feature_sizes(trunk, head, SIDE)
    array = blobs(1, (SIDE, SIDE))[0]
    caption = np.random.default_rng(0).choice(WORDS[4:], CAPTION, replace=False)
    common: dict[str, Any] = {"name": name, "preprocess": Preprocess(), "layers": ("cnn",)}
    if kind == "words":
        adapter: Any = RecurrentCaptioner(
            model=ShowAndTell(trunk, head, features, VOCABULARY).eval(),
            tokenizer=Vocabulary(WORDS),
            **common,
        )
        return Case(adapter, array, mmcam.Caption(" ".join(caption)))
    adapter = AnswerClassifier(
        model=LstmVqa(trunk, head, features, VOCABULARY, 1000).eval(),
        labels=WORDS[:1000],
        encode_question=QuestionTokenizer(WORDS),
        word_embedding="embed",
        encoder="cnn",
        gradient_strategy="batched",
        **common,
    )
    answers = list(WORDS[10 : 10 + ANSWERS])
    return Case(adapter, array, mmcam.Answers(QUESTION, answers))


def maps_of(case: Case, strategy: str, inputs: Inputs | None = None) -> Tensor:
    """Run mmcam on prepared tensors: maps of all words or answers, `[map, height, width]`."""
    inputs = inputs or case.inputs
    adapter, layer = case.adapter, case.layer
    to_grid = {layer: lambda tensor: adapter.grid(layer, tensor, inputs)}
    with capture(adapter.model, [layer], to_grid=to_grid) as (recording, check):
        output = adapter.forward(inputs)
        check()
        targets = [t for t in adapter.targets(output, case.task)[0] if t.kind != "sentence"]
        scores = recording.scores(output, [targets])
        activation = adapter.grid(layer, recording.activation(layer), inputs)
        means = (g[layer] for g in recording.gradients(scores, strategy=strategy, last=True))
        return torch.cat([grad_cam(activation, mean[..., None, None]) for mean in means])


class TeacherForced(nn.Module):
    """The model with fixed text: pictures in, all logits in one row `[batch, *]` out."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.net = case.adapter.model
        rest = case.inputs.rest
        self.is_blip = case.is_blip
        if case.is_blip:
            (prompt,), (sentence,) = rest["prompt_tokens"], rest["sentences"]
            self.text: tuple[Tensor, ...] = (
                torch.tensor([[*prompt.prefix, *sentence.tokens[:-1]]]),
            )
            size: int = self.net.config.text_config.vocab_size
            self.indices = [k * size + t for k, t in enumerate(sentence.tokens[: case.count])]
        elif isinstance(case.task, mmcam.Caption):
            tokens = rest["sentences"][0].tokens
            self.text = (torch.tensor([tokens]),)
            self.indices = [k * VOCABULARY + token for k, token in enumerate(tokens[:CAPTION])]
        else:
            self.text = (rest["question_0"], rest["question_1"])
            self.indices = [case.adapter.index(answer, 1000) for answer in case.task.answers]

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits of every token at every step, or of every answer."""
        if self.is_blip:
            logits: Tensor = self.net(pixel_values=pixels, input_ids=self.text[0]).logits
        else:
            logits = self.net(pixels, *self.text)
        return logits.flatten(1)


def bare(case: Case) -> Run:
    """Inference only."""
    pixels, forced = case.inputs.pixels, TeacherForced(case)

    def run() -> Tensor:
        with torch.inference_mode():
            output: Tensor = forced(pixels)
        return output

    return run


def by_strategy(strategy: str) -> Callable[[Case], Run]:
    """Tensors in, raw maps out, with one of the gradient strategies."""

    def prepare(case: Case) -> Run:
        inputs = case.inputs
        return lambda: maps_of(case, strategy, inputs)

    return prepare


def explain(case: Case) -> Run:
    """The one-line call."""

    def run() -> Tensor:
        explanations = mmcam.explain(case.adapter, case.array, case.task)
        return torch.stack(
            [
                explanation.cam
                for explanation in explanations
                if explanation.target.kind != "sentence"
            ]
        )

    return run


def captum(case: Case) -> Run:
    """Captum's LayerGradCam, word by word."""
    from captum.attr import LayerGradCam

    forced, pixels = TeacherForced(case), case.inputs.pixels
    extractor = LayerGradCam(forced, forced.net.cnn)

    def run() -> Tensor:
        maps = [
            extractor.attribute(pixels, target=index, relu_attributions=True).detach()[:, 0]
            for index in forced.indices
        ]
        return torch.cat(maps)

    return run


def torchcam(case: Case) -> Run:
    """torch-cam's GradCAM, word by word, with one retained forward."""
    from torchcam.methods import GradCAM

    forced, pixels = TeacherForced(case), case.inputs.pixels
    extractor = GradCAM(forced, "net.cnn")

    def run() -> Tensor:
        scores = forced(pixels)
        maps = [
            extractor(index, scores, normalized=False, retain_graph=True)[0]
            for index in forced.indices
        ]
        return torch.cat(maps)

    return run


def gradcam(case: Case) -> Run:
    """grad-cam's GradCAM, word by word; it scales maps to [0, 1] and to the input's size."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    forced, pixels = TeacherForced(case), case.inputs.pixels
    extractor = GradCAM(forced, [forced.net.cnn])

    def run() -> Tensor:
        maps = [
            torch.from_numpy(extractor(pixels, [ClassifierOutputTarget(index)]))
            for index in forced.indices
        ]
        return torch.cat(maps)

    return run


def unchanged(maps: Tensor) -> Tensor:
    """The maps in mmcam's form."""
    return maps


def scaled(maps: Tensor) -> Tensor:
    """The maps in grad-cam's form."""
    return _min_max(resize(_min_max(maps), (SIDE, SIDE)))


TOOLS: dict[str, tuple[Callable[[Case], Run], Callable[[Tensor], Tensor] | None, str]] = {
    BARE: (bare, None, "torch"),
    **{f"mmcam ({name})": (by_strategy(name), unchanged, "torch") for name in GRADIENT_STRATEGIES},
    "mmcam.explain": (explain, unchanged, "torch"),
    "captum": (captum, unchanged, "captum"),
    "torch-cam": (torchcam, unchanged, "torchcam"),
    "grad-cam": (gradcam, scaled, "pytorch_grad_cam"),
}
"""Tool -> its preparation, the conversion to its form (None: a baseline), and its package."""

NO_TOKENS = ("captum", "torch-cam", "grad-cam")
"""Tools that cannot explain the output of a transformer's encoder."""


def compare(model: str, rounds: int) -> list[Row]:
    """All tools on one model."""
    case = build(model)
    reference = maps_of(case, "loop")
    runs: dict[str, Run] = {}
    states: dict[str, str] = {}
    for name, (prepare, convert, package) in TOOLS.items():
        if importlib.util.find_spec(package) is None or (case.is_blip and name in NO_TOKENS):
            continue
        runs[name] = prepare(case.fresh())
        maps = runs[name]()
        share = 0.0 if convert is None else difference(maps, convert(reference))
        agrees = "agrees" if share < TOLERANCE else f"differs by {share:.2g}"
        states[name] = "baseline" if convert is None else agrees
    columns = times(runs, rounds, "cpu")
    bar = SUBJECTS[model]
    return [
        Row(
            model,
            name,
            states[name],
            columns[name]["time_ms"],
            columns[name]["time_ratio"],
            bar if name in (f"mmcam ({case.adapter.gradient_strategy})", "mmcam.explain") else None,
        )
        for name in runs
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows of one model, as text."""
    lines = [f"\n{rows[0].model}", f"{'':<17}{'ms':>9}{'t/bare':>8}"]
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
    """Measure, print, and write JSON if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    large = [name for name, bar in SUBJECTS.items() if bar]
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=large)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two small models, 2 rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows to this file")
    settings = parser.parse_args()
    if settings.quick:
        settings.subjects, settings.rounds = ["small-words", "small-answers"], 2
    rows: list[Row] = []
    for model in settings.subjects:
        new_rows = compare(model, settings.rounds)
        print(table(new_rows), flush=True)
        rows += new_rows
    if settings.json:
        content = {"environment": environment("cpu"), "rows": [asdict(row) for row in rows]}
        settings.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
