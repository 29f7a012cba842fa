"""Models of transformers from a folder: weights, labels, and their own processors' numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.errors import ModelError, WeightsError
from mmcam.models.registry import load

SIDE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
HALF = {"height": 31, "width": 45}
SHORT = {"shortest_edge": 45}
SIZES = [(97, 131), (131, 97), (60, 200), (33, 40)]
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "squash": ("ViTImageProcessor", {"size": HALF}),
    "squash, then crop": (
        "DeiTImageProcessor",
        {"size": HALF, "crop_size": {"height": 20, "width": 24}},
    ),
    "bicubic": ("BeitImageProcessor", {"size": HALF}),
    "share of a small picture": ("ConvNextImageProcessor", {"size": SHORT, "crop_pct": 0.8}),
    "large squash": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "short side, then crop": (
        "BitImageProcessor",
        {"size": SHORT, "crop_size": {"height": 42, "width": 40}},
    ),
    "crop beyond the picture": (
        "MobileNetV2ImageProcessor",
        {"size": SHORT, "crop_size": {"height": 52, "width": 50}},
    ),
    "larger short side": (
        "LevitImageProcessor",
        {"size": SHORT, "crop_size": {"height": 41, "width": 45}},
    ),
    "share and crop": (
        "PoolFormerImageProcessor",
        {"size": SHORT, "crop_size": {"height": 41, "width": 45}},
    ),
    "bgr without means": (
        "MobileViTImageProcessor",
        {"size": SHORT, "crop_size": {"height": 44, "width": 44}},
    ),
    "divided twice": ("EfficientNetImageProcessor", {"size": HALF, "image_std": [0.4, 0.5, 0.6]}),
    "no resizing": ("ViTImageProcessor", {"do_resize": False}),
    "no rescaling": (
        "ViTImageProcessor",
        {"size": HALF, "do_rescale": False, "image_mean": [9.0] * 3},
    ),
    "nearest": ("SegformerImageProcessor", {"size": HALF, "resample": 0}),
    "Lanczos": ("PvtImageProcessor", {"size": HALF, "resample": 1}),
}


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    red, green = 128 + 120 * np.sin(x / 9), 255 * y / height
    blue = np.where((x // 11 + y // 7) % 2, 220, 30)
    return np.stack([red, green, blue], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained ViT, as `save_pretrained` leaves it, without a processor."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    names = {0: "tench", 1: "goldfish", 2: "great white shark"}
    config = ViTConfig(**SIDE, image_size=32, patch_size=8, id2label=names)
    folder = tmp_path_factory.mktemp("vit")
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    torch.manual_seed(0)
    config = VideoMAEConfig(**SIDE, image_size=32, patch_size=16, num_frames=4)
    folder = tmp_path_factory.mktemp("videomae")
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Classifier:
    adapter = load(f"hf:{folder}")
    assert isinstance(adapter, Classifier)
    return adapter


@pytest.fixture
def with_settings(saved: Path, tmp_path: Path) -> Any:
    """A function: the model's folder with these processor settings in it."""

    def made(settings: dict[str, Any]) -> Path:
        for file in saved.iterdir():
            (tmp_path / file.name).symlink_to(file)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        return tmp_path

    return made


@pytest.mark.parametrize(("name", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_pictures_are_what_their_processor_makes_of_them(
    name: str, settings: dict[str, Any], with_settings: Any
) -> None:
    import transformers

    processor = getattr(transformers, name)(**settings)
    adapter = loaded(with_settings(json.loads(processor.to_json_string())))
    for size in SIZES:
        pixels = picture(*size)
        expected = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
        made, placement = adapter.preprocess(mmcam.Sample(pixels=pixels))
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-4)
        assert placement.size == size


@pytest.mark.parametrize(
    "settings",
    [
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 40},
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 40, "crop_pct": 0.875},
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 45, "crop_size": 40},
        {"feature_extractor_type": "DeiTFeatureExtractor", "size": 45, "crop_size": 40},
    ],
    ids=lambda settings: settings["feature_extractor_type"],
)
def test_settings_of_old_checkpoints_mean_what_they_meant(
    settings: dict[str, Any], with_settings: Any
) -> None:
    """They leave out what their class fills in, and give sizes as bare numbers."""
    from transformers import AutoImageProcessor

    folder = with_settings(settings)
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = picture(97, 131)
    expected = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    made, _ = loaded(folder).preprocess(mmcam.Sample(pixels=pixels))
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("VideoMAEImageProcessor", {"size": SHORT, "crop_size": {"height": 41, "width": 44}}),
        ("VivitImageProcessor", {"size": SHORT, "crop_size": {"height": 41, "width": 44}}),
        ("VideoMAEVideoProcessor", {"size": SHORT, "crop_size": {"height": 41, "width": 44}}),
        ("VJEPA2VideoProcessor", {"crop_size": {"height": 41, "width": 41}}),
    ],
)
def test_clips_are_what_their_processor_makes_of_them(
    name: str, settings: dict[str, Any], saved_clips: Path, tmp_path: Path
) -> None:
    import transformers

    for file in saved_clips.iterdir():
        (tmp_path / file.name).symlink_to(file)
    processor = getattr(transformers, name)(**settings)
    processor.save_pretrained(tmp_path)
    clip = np.stack([np.roll(picture(97, 131), 7 * i, 1) for i in range(4)])
    made_by_it = processor(list(clip), return_tensors="pt")
    expected = made_by_it.get("pixel_values", made_by_it.get("pixel_values_videos"))[0]
    made, _ = loaded(tmp_path).preprocess(mmcam.Sample(pixels=clip))
    # ViViT's resizes with Pillow, which may round to the level beside ours.
    level = 2.01 / 127.5 if name.startswith("Vivit") else 1e-4
    torch.testing.assert_close(made.transpose(0, 1), expected, rtol=1e-5, atol=level)


def test_a_trained_model_without_a_processor_is_refused(saved: Path) -> None:
    with pytest.raises(ModelError, match=r"settings of its image processor.*save_pretrained"):
        load(f"hf:{saved}")


def test_an_untrained_model_needs_no_processor(saved: Path) -> None:
    adapter = load(f"hf:{saved}", weights="random")
    pixels = adapter.prepare([mmcam.Sample(pixels=picture(97, 131))], mmcam.Classes()).pixels
    assert pixels.shape == (1, 3, 32, 32)
    assert adapter.weights is None


def test_a_folder_brings_its_weights_and_labels(with_settings: Any) -> None:
    from transformers import ViTForImageClassification

    folder = with_settings(
        {"image_processor_type": "ViTImageProcessor", "size": HALF | {"width": 31}}
    )
    adapter = loaded(folder)
    assert adapter.labels == ("tench", "goldfish", "great white shark")
    trained = ViTForImageClassification.from_pretrained(folder).state_dict()
    ours = adapter.model.state_dict()
    assert all(torch.equal(ours[key], trained[key]) for key in trained)
    assert adapter.weights is not None


def test_a_weights_file_goes_before_the_folders_own(with_settings: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = with_settings({"image_processor_type": "ViTImageProcessor"})
    state = load_file(folder / "model.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, tmp_path / "other.safetensors")
    adapter = load(f"hf:{folder}", weights=tmp_path / "other.safetensors")
    key = "classifier.weight"
    torch.testing.assert_close(adapter.model.state_dict()[key], state[key] + 1)


def test_a_checkpoint_without_a_classifier_is_refused(with_settings: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = with_settings({"image_processor_type": "ViTImageProcessor"})
    state = load_file(folder / "model.safetensors")
    body = {key: value for key, value in state.items() if not key.startswith("classifier")}
    (folder / "model.safetensors").unlink()
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"no weights for classifier.bias, classifier.weight"):
        load(f"hf:{folder}")


def test_a_weights_file_of_another_model_is_refused(with_settings: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = with_settings({"image_processor_type": "ViTImageProcessor"})
    state = load_file(folder / "model.safetensors")
    state["classifier.weight"] = torch.zeros(7, 8)
    state["head.bias"] = state.pop("classifier.bias")
    save_file(state, tmp_path / "other.safetensors")
    expected = (
        r"1 missing \(classifier.bias\); 1 unknown \(head.bias\); "
        r"1 of another shape \(classifier.weight \(7, 8\) instead of \(3, 8\)\)"
    )
    with pytest.raises(WeightsError, match=expected):
        load(f"hf:{folder}", weights=tmp_path / "other.safetensors")


def test_numbered_labels_of_transformers_are_no_names() -> None:
    adapter = load("hf:vit", weights="random")
    assert isinstance(adapter, Classifier)
    assert adapter.labels == ()
    assert adapter.label(1) == "1"


def test_a_model_that_is_no_classifier_is_refused() -> None:
    with pytest.raises(ModelError, match="no classifier of pictures or clips of type 'gpt2'"):
        load("hf:gpt2", weights="random")


def test_an_unreachable_model_is_refused_with_the_nearest_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'nobody/convnex'.*Known types: convnext"):
        load("hf:nobody/convnex")
