"""Captioners of transformers from folders and by their types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.transformers.blip_vqa import BlipVqaAdapter
from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.errors import ModelError, WeightsError
from mmcam.models.registry import build, load
from tests.adapters.tiny_generative import BLIP_VQA, case_of, folder
from tests.adapters.tiny_generative_models import TEXT, VISION


def test_an_untrained_type_needs_a_processor() -> None:
    with pytest.raises(ModelError, match=r"hf:blip has no tokenizer.*\"processor\": DIR"):
        load("hf:blip", weights="random")
    saved = folder(case_of("blip"))
    parts = {**_blip(), "processor": str(saved)}
    adapter = build(Recipe(family="hf", name="blip", args=parts, pretrained=False))
    assert isinstance(adapter, GenerativeAdapter)
    assert adapter.weights is None
    assert adapter.model.config.text_config.vocab_size == 60  # type: ignore[union-attr]
    again = load(f"hf:{saved}", weights="random")
    assert again.weights is None


def test_a_weights_file_goes_before_the_folders_own(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved = folder(case_of("git"))
    state = load_file(saved / "model.safetensors")
    key = "git.encoder.layer.0.output.dense.weight"
    save_file({name: value + 1 for name, value in state.items()}, tmp_path / "other.safetensors")
    adapter = load(f"hf:{saved}", weights=tmp_path / "other.safetensors")
    torch.testing.assert_close(adapter.model.state_dict()[key], state[key] + 1)
    assert adapter.weights is not None
    assert adapter.weights.sha256


TEACHER = "DeiTForImageClassificationWithTeacher"


@pytest.mark.parametrize("architectures", [[TEACHER], ["DeiTForImageClassification"], None, ["X"]])
def test_a_weights_file_fills_the_classifier_that_the_configuration_names(
    architectures: list[str] | None, tmp_path: Path
) -> None:
    """DeiT has two classifiers; the one with a teacher has two heads."""
    import transformers

    name = TEACHER if architectures == [TEACHER] else "DeiTForImageClassification"
    args = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    args |= {"intermediate_size": 32, "patch_size": 8, "image_size": 32}
    config = transformers.DeiTConfig(**args, num_labels=5)
    model = getattr(transformers, name)(config).eval()
    model.save_pretrained(tmp_path)
    transformers.DeiTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["architectures"] = architectures
    (tmp_path / "config.json").write_text(json.dumps(saved))
    adapter = load(f"hf:{tmp_path}", weights=tmp_path / "model.safetensors")
    assert type(adapter.model) is type(model)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        logits = adapter.logits(adapter.model.eval()(pixels))
        torch.testing.assert_close(logits, model(pixels).logits)


def test_a_checkpoint_that_generates_no_text_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder(case_of("llava")).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    head = {key: value for key, value in state.items() if "lm_head" not in key}
    assert len(head) < len(state)
    save_file(head, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"no weights for lm_head.weight.*generate captions"):
        load(f"hf:{tmp_path}")
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["LlavaForSomethingElse"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is a LlavaForSomethingElse, which generates no captions"):
        load(f"hf:{tmp_path}")


def test_a_model_without_its_processor_is_refused(tmp_path: Path) -> None:
    for file in folder(case_of("blip")).iterdir():
        if file.name in ("config.json", "model.safetensors"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"without the processor of a blip.*save_pretrained"):
        load(f"hf:{tmp_path}")


def test_the_architecture_decides_between_blip_models(tmp_path: Path) -> None:
    """Captioning and VQA are two models of one type, with and without weights."""
    args = {"processor": str(folder(BLIP_VQA)), **_blip()}
    captioner = build(Recipe(family="hf", name="blip", args=args, pretrained=False))
    args["architectures"] = ["BlipForQuestionAnswering"]
    answerer = build(Recipe(family="hf", name="blip", args=args, pretrained=False))
    assert isinstance(answerer, BlipVqaAdapter)
    assert not isinstance(captioner, BlipVqaAdapter)
    assert isinstance(load(f"hf:{folder(BLIP_VQA)}"), BlipVqaAdapter)
    for file in folder(BLIP_VQA).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["BlipForImageTextRetrieval"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match="is a BlipForImageTextRetrieval, which generates no captions"
    ):
        load(f"hf:{tmp_path}")


def _blip() -> dict[str, object]:
    return {
        "text_config": {**TEXT, "encoder_hidden_size": 16, "vocab_size": 60},
        "vision_config": VISION,
    }
