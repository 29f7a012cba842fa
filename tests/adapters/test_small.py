from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import mmcam
from mmcam.adapters.networks.cnn import halves, width
from mmcam.adapters.networks.small_cnn import SmallCNN
from mmcam.types import Inputs

ARGS = {"channels": [4, 6, 6, 8, 8], "cells": 3, "looks": 2, "features": 10}


def test_its_halves_are_the_whole() -> None:
    model = SmallCNN(3, **ARGS)
    trunk, head = halves(model, "trunk", "small")
    pixels = torch.randn(2, 3, 96, 96)
    assert trunk(pixels).shape == (2, 8, 12, 12)
    torch.testing.assert_close(model.classifier(head(trunk(pixels))), model(pixels))
    # The vector keeps its length whatever the picture's side, so its width can be probed.
    assert width(trunk, head, 96) == width(trunk, head, 224) == (8, 10)


def test_without_classes_it_gives_the_vector() -> None:
    model = SmallCNN(**ARGS).eval()
    pixels = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(
        model(pixels), model.forward_head(model.forward_features(pixels), pre_logits=True)
    )


def test_the_vector_knows_where_things_are() -> None:
    torch.manual_seed(0)
    model = SmallCNN(**{**ARGS, "features": 64}).eval()
    maps = torch.rand(1, 8, 12, 12)
    there, mirrored = (model.forward_head(m, pre_logits=True) for m in (maps, maps.flip(3)))
    assert (there - mirrored).abs().max() > 0.001


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(SmallCNN(3, **ARGS).state_dict(), tmp_path / "weights.safetensors")
    manifest = {"schema_version": 1, "family": "small", "args": {"classes": 3, **ARGS}}
    text = json.dumps({**manifest, "weights": "weights.safetensors"})
    (tmp_path / "mmcam.json").write_text(text)
    return tmp_path


def test_a_folder_of_it_is_a_classifier_whose_map_is_explained(folder: Path) -> None:
    model = mmcam.load(folder)
    inputs = Inputs(pixels=torch.zeros(1, 3, 96, 96), placements=())
    assert model.grid("trunk", torch.zeros(1, 8, 12, 12), inputs).shape == (1, 8, 12, 12)
    pixels = (torch.rand(50, 70, 3) * 255).byte().numpy()
    found = mmcam.explain(model, pixels, mmcam.Classes(top=3), method="hirescam")
    assert [one.layer for one in found] == ["trunk"] * 3
    assert found[0].heatmap().shape == (50, 70)
