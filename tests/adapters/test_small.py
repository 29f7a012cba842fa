from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import mmcam
from mmcam.adapters.networks.cnn import feature_sizes, split_cnn
from mmcam.adapters.networks.small_cnn import SmallCNN
from mmcam.types import Inputs

ARGS = {"channels": [4, 6, 6, 8, 8], "cells": 3, "looks": 2, "features": 10}


def test_trunk_and_head_are_the_whole_network() -> None:
    model = SmallCNN(3, **ARGS)
    trunk, head = split_cnn(model, "trunk", "small")
    pixels = torch.randn(2, 3, 96, 96)
    assert trunk(pixels).shape == (2, 8, 12, 12)
    torch.testing.assert_close(model.classifier(head(trunk(pixels))), model(pixels))
    # The vector's length does not depend on the picture's side, so it can be probed.
    assert feature_sizes(trunk, head, 96) == feature_sizes(trunk, head, 224) == (8, 10)


def test_without_classes_it_returns_the_vector() -> None:
    model = SmallCNN(**ARGS).eval()
    pixels = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(
        model(pixels), model.forward_head(model.forward_features(pixels), pre_logits=True)
    )


def test_the_vector_encodes_positions() -> None:
    torch.manual_seed(0)
    model = SmallCNN(**{**ARGS, "features": 64}).eval()
    maps = torch.rand(1, 8, 12, 12)
    vector, mirrored = (model.forward_head(m, pre_logits=True) for m in (maps, maps.flip(3)))
    assert (vector - mirrored).abs().max() > 0.001


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
    maps = mmcam.explain(model, pixels, mmcam.Classes(top=3), method="hirescam")
    assert [explanation.layer for explanation in maps] == ["trunk"] * 3
    assert maps[0].heatmap().shape == (50, 70)
