"""The dtype and the revision of a loaded model."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
import transformers
from torch import nn

import mmcam
from mmcam.adapters.base.recipe import Recipe
from mmcam.errors import LayerError, ModelError
from mmcam.models.registry import build
from tests.adapters.tiny_generative import case_of, folder


@pytest.mark.parametrize("dtype", [torch.float64, "float64", "torch.float64"])
def test_the_weights_have_the_dtype(dtype: Any) -> None:
    model = mmcam.load(f"hf:{folder(case_of('blip'))}", dtype=dtype)
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float64}


@pytest.mark.parametrize("dtype", ["float31", "int8", torch.int64, "nn"])
def test_what_is_no_floating_type_is_refused(dtype: Any) -> None:
    with pytest.raises(ModelError, match=r"dtype=.* is not a floating-point type; give float32"):
        mmcam.load(f"hf:{folder(case_of('blip'))}", dtype=dtype)


def test_a_layer_of_a_model_that_is_not_loaded_yet_is_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for layers in (nn.Linear(1, 1), [nn.Linear(1, 1)]):
        with pytest.raises(
            LayerError, match=r"load is given a Linear as a layer.*explain\(.*layer"
        ):
            mmcam.load("timm:resnet18", weights="random", layers=layers)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["timm:resnet18", "c3d", "a.b:c", "hf:folder"])
def test_a_model_without_revisions_is_refused(name: str) -> None:
    name = name.replace("folder", str(folder(case_of("blip"))))
    with pytest.raises(ModelError, match=r"has no revision 'v2'; revisions are of models of trans"):
        mmcam.load(name, revision="v2")


def test_configuration_weights_and_processor_are_of_the_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    revisions: dict[str, Any] = {}
    model_class = transformers.BlipForConditionalGeneration
    for loaded in (transformers.AutoConfig, transformers.AutoProcessor, model_class):
        original = loaded.from_pretrained

        def watched(
            *args: Any, _name: str = loaded.__name__, _run: Any = original, **options: Any
        ) -> Any:
            revisions.setdefault(_name, options.get("revision"))
            return _run(*args, **options)

        monkeypatch.setattr(loaded, "from_pretrained", watched)
    build(Recipe(family="hf", name=str(folder(case_of("blip"))), revision="v2"))
    assert revisions == {
        "AutoConfig": "v2",
        "AutoProcessor": "v2",
        "BlipForConditionalGeneration": "v2",
    }
