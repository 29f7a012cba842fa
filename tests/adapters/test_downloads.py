"""Weights that cannot be downloaded, or that are not in their folder: one line, at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.error import URLError

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from mmcam.adapters.base import downloads
from mmcam.adapters.base.downloads import without_retries
from mmcam.errors import ModelError, WeightsError
from mmcam.models.registry import load
from tests.adapters.tiny_generative import case_of, folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server is found, and no file is in a cache."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("torchvision:squeezenet1_1", r"https://download\.pytorch\.org/models/squeezenet1_1-.*pth"),
        ("torchvision:r3d_18", r"https://download\.pytorch\.org/models/r3d_18-.*pth"),
        ("pytorchvideo:x3d_xs", r"https://dl\.fbaipublicfiles\.com/.*/X3D_XS\.pyth"),
        ("timm:test_byobnet", r"https://huggingface\.co/timm/test_byobnet.* \(file model\.safet"),
    ],
)
def test_weights_that_cannot_be_downloaded(name: str, source: str) -> None:
    start = time.monotonic()
    with pytest.raises(WeightsError, match=f"the weights of {name} cannot .* {source}") as info:
        load(name)
    assert time.monotonic() - start < 10
    message = str(info.value)
    assert "Name or service not known" in message
    assert message.endswith(
        "give a file instead (--weights FILE), or 'random' for an untrained model"
    )
    assert "\n" not in message
    assert isinstance(info.value.__cause__, OSError)
    assert constants.HF_HUB_OFFLINE is False


def test_timm_model_without_published_weights() -> None:
    with pytest.raises(WeightsError, match=r"timm publishes no weights for 'cs3darknet_s'; give a"):
        load("timm:cs3darknet_s")
    assert load("timm:cs3darknet_s", weights="random").weights is None


def test_hub_model_that_cannot_be_reached() -> None:
    with pytest.raises(ModelError, match=r"'some/model' .*connect to 'https://hugg.*folder that"):
        load("hf:some/model")
    assert not huggingface_hub.is_offline_mode()


@pytest.mark.parametrize("name", ["blip", "vit"])
def test_folder_without_weights(name: str, tmp_path: Path) -> None:
    if name == "blip":
        for file in folder(case_of(name)).iterdir():
            if file.suffix != ".safetensors":
                (tmp_path / file.name).write_bytes(file.read_bytes())
    else:
        from transformers import ViTConfig

        ViTConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"the folder .*no file named model.safetensors") as info:
        load(f"hf:{tmp_path}")
    assert "--weights FILE" in str(info.value)
    assert "\n" not in str(info.value)


def test_a_hub_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_unreachable", lambda: None)
    with without_retries() as reason:
        assert reason is None
        assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the user's own choice stays
    with without_retries():
        assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE


def test_offline_mode_is_left_after_an_error() -> None:
    with pytest.raises(URLError), without_retries():
        raise URLError(str(constants.HF_HUB_OFFLINE))
    assert not constants.HF_HUB_OFFLINE
