"""Models of transformers in memory: explained as from a folder, and left as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mmcam
from mmcam.adapters.transformers.loading import ProcessorPair
from mmcam.errors import LayerError, ModelError
from mmcam.types import Sample
from tests.adapters.tiny_generative import (
    BLIP_VQA,
    CASES,
    VILT,
    TinyModel,
    case_of,
    folder,
    picture,
    randomize,
)
from tests.snapshots import assert_as_found, snapshot

QUESTION = "what does the dog describe ?"
PLAIN = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 8,
    "image_size": 32,
}


def in_memory(case: TinyModel) -> tuple[Any, Any]:
    """The model and processor that `case.save` writes, in training mode."""
    folder(case)  # skips where a package is missing
    torch.manual_seed(0)
    model, processor = case.build()
    randomize(model)
    return model.train(), processor


def vit() -> tuple[Any, Any]:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    labels = {0: "cat", 1: "dog", 2: "bird"}
    config = ViTConfig(**PLAIN, id2label=labels, hidden_dropout_prob=0.5)
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3])
    return ViTForImageClassification(config), processor


def videomae() -> tuple[Any, Any]:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor

    config = VideoMAEConfig(**PLAIN, num_frames=4, num_labels=3)
    size = {"shortest_edge": 32}
    processor = VideoMAEImageProcessor(size=size, crop_size={"height": 32, "width": 32})
    return VideoMAEForVideoClassification(config), processor


def sample_of(case: TinyModel, text: str) -> Sample:
    return Sample(pixels=picture(case.size).pixels, text=text)


def implementations(model: nn.Module) -> list[str | None]:
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    return [getattr(config, "_attn_implementation", None) for config in configs]


def assert_same(first: mmcam.Explanations, second: mmcam.Explanations) -> None:
    for one, other in zip(first, second, strict=True):
        assert (one.label, one.layer) == (other.label, other.layer)
        assert one.score == pytest.approx(other.score, rel=1e-4)
        torch.testing.assert_close(one.cam, other.cam, rtol=1e-4, atol=1e-6)
        assert dict(one.words) == pytest.approx(dict(other.words), rel=1e-4, abs=1e-6)
    assert any(explanation.cam.any() for explanation in first)


@pytest.mark.parametrize("case", [*CASES, BLIP_VQA, VILT], ids=str)
def test_a_model_with_text_is_explained_as_from_its_folder(case: TinyModel) -> None:
    answers = case in (BLIP_VQA, VILT) or case.name == "llava"
    task: Any = mmcam.Answers(top=2) if answers else mmcam.Caption(max_new_tokens=4)
    method = ["gradcam", "attention"] if case.has_attention and case is not VILT else ["gradcam"]
    model, processor = in_memory(case)
    attention = implementations(model)
    adapter = mmcam.from_transformers(model, processor)
    assert adapter.name == type(model).__name__
    assert adapter.layouts is None
    before = snapshot(model)
    sample = sample_of(case, QUESTION if answers else "")
    maps = mmcam.explain(adapter, sample, task, method=method)
    assert_as_found(model, before)
    assert model.training
    assert implementations(model) == attention
    saved = mmcam.load(f"hf:{folder(case)}")
    assert type(saved) is type(adapter)
    assert_same(maps, mmcam.explain(saved, sample, task, method=method))


@pytest.mark.parametrize("build", [vit, videomae], ids=["vit", "videomae"])
def test_a_classifier_is_explained_as_from_its_folder(
    build: Callable[[], tuple[Any, Any]], tmp_path: Path
) -> None:
    model, processor = build()
    randomize(model)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model.train()
    before = snapshot(model)
    adapter = mmcam.from_transformers(model, processor)
    saved = mmcam.load(f"hf:{tmp_path}")
    assert adapter.layouts is not None
    assert adapter.preprocess == saved.preprocess  # type: ignore[attr-defined]
    pixels = picture((40, 48)).pixels
    clip = build is videomae
    sample = Sample(pixels=pixels[None].repeat(6, 0) if clip else pixels)
    maps, expected = (
        mmcam.explain(each, sample, mmcam.Classes(top=2)) for each in (adapter, saved)
    )
    assert_as_found(model, before)
    assert_same(maps, expected)
    if build is vit:
        assert {explanation.label for explanation in maps} <= {"cat", "dog", "bird"}


def test_parts_of_a_processor_serve_as_well_as_the_whole() -> None:
    model, processor = in_memory(case_of("blip"))
    pair = (processor.image_processor, processor.tokenizer)
    sample, task = sample_of(case_of("blip"), ""), mmcam.Caption(max_new_tokens=3)
    first, second = (
        mmcam.explain(mmcam.from_transformers(model, each), sample, task)
        for each in (processor, pair)
    )
    assert_same(first, second)
    classifier, image_processor = vit()
    randomize(classifier)
    combined = ProcessorPair(image_processor, processor.tokenizer)
    settings = [
        mmcam.from_transformers(classifier, each).preprocess  # type: ignore[attr-defined]
        for each in (image_processor, combined, (image_processor, processor.tokenizer))
    ]
    assert settings[0] == settings[1] == settings[2]


def test_names_layers_and_labels_are_the_users() -> None:
    model, processor = vit()
    adapter: Any = mmcam.from_transformers(
        model, processor, labels=["a", "b", "c"], layers="vit.layers.0", name="fine-tuned"
    )
    assert (adapter.name, adapter.layers, adapter.labels) == (
        "fine-tuned",
        ("vit.layers.0",),
        ("a", "b", "c"),
    )


def test_layers_may_be_modules_and_labels_a_mapping() -> None:
    model, processor = vit()
    layer = model.vit.layers[1]
    names = {2: "bird", 0: "cat", 1: "dog"}
    for layers in (layer, [layer], ["vit.layers.1"]):
        adapter: Any = mmcam.from_transformers(model, processor, layers=layers, labels=names)
        assert (adapter.layers, adapter.labels) == (("vit.layers.1",), ("cat", "dog", "bird"))
    with pytest.raises(LayerError, match="the Linear given as a layer is not a part of ViTFor"):
        mmcam.from_transformers(model, processor, layers=nn.Linear(1, 1))
    with pytest.raises(ModelError, match=r"keys \['cat', 'dog', 'bird'\]; .* 0 to 2 to names"):
        mmcam.from_transformers(model, processor, labels={"cat": 0, "dog": 1, "bird": 2})


def test_a_model_keeps_its_dtype() -> None:
    model, processor = in_memory(case_of("blip"))
    adapter = mmcam.from_transformers(model.bfloat16(), processor)
    maps = mmcam.explain(adapter, sample_of(case_of("blip"), ""), mmcam.Caption(max_new_tokens=3))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert any(explanation.cam.any() for explanation in maps)


def test_what_is_no_model_of_transformers_is_refused() -> None:
    model, processor = vit()
    with pytest.raises(ModelError, match=r"a DataParallel is not a model of transf.*model\.module"):
        mmcam.from_transformers(nn.DataParallel(model), processor)
    with pytest.raises(ModelError, match=r"a Linear is not a model of transf.*mmcam\.wrap"):
        mmcam.from_transformers(nn.Linear(1, 1), processor)


def test_a_model_without_classes_or_text_is_refused() -> None:
    from transformers import BertConfig, BertModel, BlipModel, ViTModel

    sizes = {key: value for key, value in PLAIN.items() if "size" not in key or "hidden" in key}
    with pytest.raises(ModelError, match=r"a BertModel .* no model of type 'bert'; nearest: beit"):
        mmcam.from_transformers(BertModel(BertConfig(**sizes, vocab_size=9)), vit()[1])
    classifier, processor = vit()
    with pytest.raises(ModelError, match=r"a ViTModel .* explains ViTForImageClassification"):
        mmcam.from_transformers(ViTModel(classifier.config), processor)
    captioner, blip_processor = in_memory(case_of("blip"))
    explained = "BlipForQuestionAnswering, BlipForConditionalGeneration"
    with pytest.raises(ModelError, match=rf"a BlipModel .* mmcam explains {explained}"):
        mmcam.from_transformers(BlipModel(captioner.config), blip_processor)


def test_a_processor_without_the_needed_part_is_refused() -> None:
    classifier, image_processor = vit()
    captioner, processor = in_memory(case_of("blip"))
    tokenizer = processor.tokenizer
    with pytest.raises(ModelError, match=r"a BertTokenizer has no image processor, which a ViTFor"):
        mmcam.from_transformers(classifier, tokenizer)
    with pytest.raises(ModelError, match=r"a function has no .*wrap\(model, prepare=transform\)"):
        mmcam.from_transformers(classifier, lambda image: image)
    wrong: list[tuple[Any, str]] = [
        (image_processor, r"a ViTImageProcessor\w* is not"),
        ((tokenizer, image_processor), r"\(BertTokenizer, ViTImageProcessor\w*\) is not"),
        (None, "a NoneType is not"),
    ]
    for given, described in wrong:
        with pytest.raises(
            ModelError, match=rf"{described} a processor of pictures and text.*pair"
        ):
            mmcam.from_transformers(captioner, given)
