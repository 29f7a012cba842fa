"""Pictures that a processor or model cannot take, and models that fail: one line each."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import mmcam
from mmcam.errors import InputError, ModelError
from mmcam.models.registry import load
from mmcam.tasks import Answers, Caption
from tests.adapters.tiny_generative import (
    BLIP_VQA,
    GIVEN,
    VILT,
    TinyModel,
    adapter_of,
    case_of,
    folder,
    picture,
)

QUESTION = "what does the dog describe ?"


@pytest.mark.parametrize("size", [(3, 700), (700, 3)])
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "llava_next", "vilt"])
def test_narrow_pictures_are_refused_in_one_line(name: str, size: tuple[int, int]) -> None:
    adapter = load(f"hf:{folder(VILT)}") if name == "vilt" else adapter_of(case_of(name))
    task = Answers(QUESTION, ["red"]) if name == "vilt" else Caption(GIVEN)
    with pytest.raises(InputError) as info:
        mmcam.explain(adapter, picture(size), task)
    message = str(info.value)
    assert f"{size[0]} x {size[1]} pixels (height x width)" in message
    assert message.endswith("; crop or pad the picture")
    assert "\n" not in message
    if name.startswith("qwen"):
        assert "absolute aspect ratio must be smaller than 200, got 233.3" in message


def test_llava_next_without_a_cell_of_its_tiles_is_refused() -> None:
    """The model would see the small view of the whole picture alone."""
    adapter = adapter_of(case_of("llava_next"))
    for size in ((204, 9), (9, 204)):
        with pytest.raises(InputError, match="cuts off all cells of its padded tiles; crop or pad"):
            mmcam.explain(adapter, picture(size), Caption(GIVEN))
    for size in ((204, 40), (40, 204)):
        assert mmcam.explain(adapter, picture(size), Caption(GIVEN))[0].cam.any()


@pytest.mark.parametrize("case", [case_of("blip"), case_of("qwen2_vl"), BLIP_VQA])
@pytest.mark.parametrize("generated", [True, False])
def test_a_failing_model_is_one_line(case: TinyModel, generated: bool) -> None:
    """While it generates, while it encodes the picture for given answers, and in its forward."""
    adapter = adapter_of(case)

    def fail(module: nn.Module, *args: Any) -> None:
        raise ValueError("broken")

    tasks: list[Any] = [Answers(QUESTION, None if generated else ["red"])]
    if case is not BLIP_VQA:
        tasks.append(Caption(None if generated else GIVEN))
    hook = adapter.model.get_submodule(case.layer).register_forward_hook(fail)
    try:
        for task in tasks if case.name != "blip" else tasks[1:]:
            with pytest.raises(ModelError, match=r"failed on an input of shape .*broken") as info:
                mmcam.explain(adapter, picture(case.size), task)
            assert isinstance(info.value.__cause__, ValueError)
    finally:
        hook.remove()
