"""From a name, a folder or a factory to a model; and which layers and models there are."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mmcam
import mmcam.data
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.networks.c3d import C3D
from mmcam.errors import LayerError, ModelError, WeightsError
from mmcam.models import FAMILIES, load, model_names, wrap
from mmcam.models.registry import build, layers_of
from mmcam.types import Adapter

ARGS: dict[str, Any] = {
    "classes": 3,
    "channels": (2, 2, 2, 2, 2),
    "hidden": 4,
    "size": (16, 32, 48),
}
MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "family": "c3d",
    "args": ARGS,
    "weights": "weights.safetensors",
    "labels": "labels.txt",
    "preprocess": {"resize": [32, 48], "order": "bgr", "frames": 16, "stride": 2},
    "layer": "relu4b",
}


def network(seed: int) -> C3D:
    torch.manual_seed(seed)
    return C3D(**ARGS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid model folder, one level below `tmp_path`."""
    path = tmp_path / "model"
    path.mkdir()
    save_file(network(1).state_dict(), path / "weights.safetensors")
    (path / "labels.txt").write_text("high jump\npole vault\nsurfing\n")
    (path / "mmcam.json").write_text(json.dumps(MANIFEST))
    return path


def change(folder: Path, **values: Any) -> None:
    """Other values in the folder's `mmcam.json`; None takes a key out."""
    changed = {key: value for key, value in (MANIFEST | values).items() if value is not None}
    (folder / "mmcam.json").write_text(json.dumps(changed))


def classifier(adapter: Adapter) -> Classifier:
    assert isinstance(adapter, Classifier)
    return adapter


def test_a_folder_says_all_about_its_model(folder: Path) -> None:
    adapter = classifier(load(folder))
    assert adapter.name == "c3d"
    assert adapter.labels == ("high jump", "pole vault", "surfing")
    assert adapter.layers == ("relu4b",)
    assert adapter.window is not None
    assert (adapter.window.frames, adapter.window.stride, adapter.window.fps) == (16, 2, None)
    for key, value in network(1).state_dict().items():
        assert torch.equal(adapter.model.state_dict()[key], value)
    assert adapter.weights is not None
    assert adapter.weights.source == str(folder / "weights.safetensors")
    assert adapter.weights.sha256 is not None


def test_what_the_user_gives_goes_before_what_the_folder_says(folder: Path, tmp_path: Path) -> None:
    torch.save(network(2).state_dict(), tmp_path / "other.pth")
    adapter = classifier(
        load(str(folder), weights=tmp_path / "other.pth", labels=["a", "b", "c"], layers="relu5b")
    )
    assert adapter.labels == ("a", "b", "c")
    assert adapter.layers == ("relu5b",)
    assert torch.equal(adapter.model.state_dict()["fc8.bias"], network(2).fc8.bias)


def test_a_folder_can_be_loaded_untrained(folder: Path) -> None:
    adapter = load(folder, weights="random")
    assert adapter.weights is None
    assert not torch.equal(adapter.model.state_dict()["fc8.weight"], network(1).fc8.weight)


def test_files_beside_the_folder_are_its_own(folder: Path) -> None:
    (folder.parent / "beside").mkdir()
    (folder / "weights.safetensors").rename(folder.parent / "beside" / "weights.safetensors")
    change(folder, weights="../beside/weights.safetensors")
    assert load(folder).weights is not None


@pytest.mark.parametrize("name", ["weights", "labels"])
@pytest.mark.parametrize(
    "path", ["../../x", "../../../etc/passwd", "sub/../../../x", "/etc/passwd"]
)
def test_paths_that_leave_the_folder_are_refused(folder: Path, name: str, path: str) -> None:
    change(folder, **{name: path})
    with pytest.raises(ModelError, match=r"outside the folder; keep the file in the folder"):
        load(folder)


def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path_factory: Any) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "deep" / "secret"
    secret.parent.mkdir()
    secret.write_text("a\nb\nc\n")
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to(secret)
    with pytest.raises(ModelError, match="outside the folder"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"mmcam.json' cannot be read \(Expecting property name.*fix the file"),
        ("\xff", r"mmcam.json' (cannot be read|names no family)"),
        ("[]", r"names no family; add \"family\": one of torchvision, timm"),
        ('{"schema_version": 1}', "names no family"),
        ('{"family": "c3d"}', r"schema_version None; this mmcam reads 1"),
        ('{"family": "c3d", "schema_version": 2}', r"schema_version 2; this mmcam reads 1"),
        ('{"family": "c4d", "schema_version": 1}', r"no family 'c4d'; nearest: c3d"),
    ],
)
def test_a_broken_manifest_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "mmcam.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "none.safetensors"}, r"names 'none.safetensors', but there is no such file"),
        ({"labels": "none.txt"}, r"names 'none.txt', but there is no such file"),
        ({"preprocess": {"side": 4}}, r"preprocess has no 'side'; it takes resize"),
        ({"args": {"classes": 9}}, r"does not fit C3D"),
        ({"args": {"colours": 9}}, r"colours"),
        ({"args": [1]}, r"\"args\""),
        ({"preprocess": "resize"}, r"\"preprocess\""),
        ({"weights": 3}, r"\"weights\""),
        ({"labels": ["a"]}, r"\"labels\""),
    ],
)
def test_values_that_do_not_fit_are_refused(
    folder: Path, values: dict[str, Any], message: str
) -> None:
    change(folder, **values)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no mmcam.json; give a folder that has one"):
        load(tmp_path)


FACTORIES = """
import torch
from torch import nn
import mmcam
import mmcam.data

def good():
    return mmcam.wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))

def bare():
    return nn.Conv2d(3, 2, 1)

def wrong():
    raise ValueError("no cube today")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of factories in the working folder."""
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_factories", raising=False)


@pytest.mark.usefixtures("here")
def test_a_factory_in_the_working_folder_is_found(tmp_path: Path) -> None:
    torch.save(
        {"0.weight": torch.ones(2, 3, 1, 1), "0.bias": torch.zeros(2)}, tmp_path / "weights.pth"
    )
    adapter = classifier(
        load("my_factories:good", weights="weights.pth", labels=["no", "yes"], layers="0")
    )
    assert adapter.labels == ("no", "yes")
    assert adapter.weights is not None
    pixels = np.full((8, 8, 3), 255, np.uint8)
    assert mmcam.explain(adapter, pixels, mmcam.Classes(["yes"]))["yes"].layer == "0"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_factories:bare", r"returns a Conv2d; let it return mmcam.wrap\(module"),
        ("my_factories:absent", r"cannot be found \(.*absent.*or package.module:factory"),
        ("my_factory:good", r"cannot be found \(No module named 'my_factory'\)"),
        ("my_factories:wrong", r"my_factories:wrong.*no cube today"),
        ("my_factories:FACTORY", r"cannot be found"),
    ],
)
def test_a_factory_that_gives_no_model_is_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(name)


@pytest.mark.usefixtures("here")
def test_a_factory_chooses_its_own_weights() -> None:
    with pytest.raises(WeightsError, match=r"'random' cannot be used with 'my_factories:good'"):
        load("my_factories:good", weights="random")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvison:resnet50", r"'torchvison'"),
        ("resnet50", r"no model 'resnet50'; nearest: .*resnet.*families: torchvision, timm"),
        ("torchvision:resnet51", r"torchvision has no classifier 'resnet51'; nearest: resnet50"),
        ("torchvision:fcn_resnet50", r"no classifier 'fcn_resnet50'"),
        (
            "timm:resnet18.x",
            r"timm:resnet18.x cannot be built \(RuntimeError: Invalid pretrained tag",
        ),
        ("timm:resnet5o", r"timm has no model 'resnet5o'; nearest: resnet50"),
        ("pytorchvideo:slowfast", r"no 'slowfast'; nearest: slowfast_r"),
        ("./no/such/folder", r"no model './no/such/folder'"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(name, weights="random")


def test_a_configuration_that_transformers_refuses_is_refused(tmp_path: Path) -> None:
    values = {"model_type": "vit", "hidden_act": "gelo", "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"cannot be built \(KeyError: 'gelo'\); check its name,"):
        load(f"hf:{tmp_path}", weights="random")


def test_an_error_of_mmcam_itself_is_no_error_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcam.adapters.small.SmallCNN", None)
    with pytest.raises(TypeError, match="not callable"):
        build(Recipe(family="small", name=""))


@pytest.mark.parametrize("device", ["cuda:99", "tpu9", "mps:7"])
def test_a_device_that_cannot_be_used_is_refused(folder: Path, device: str) -> None:
    with pytest.raises(ModelError, match=rf"device '{device}' cannot be used \(.*; try cpu"):
        load(folder, device=device)


def test_missing_labels_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"labels file '.*none.txt' cannot be read"):
        load(folder, labels=tmp_path / "none.txt")


class Own(nn.Module):
    """Somebody's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"scores": self.head(self.trunk(pixels).mean((2, 3)))}


def test_three_lines_explain_ones_own_network() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    module = Own()
    model = mmcam.wrap(module, layer="trunk", labels=["cat", "dog"], logits=lambda o: o["scores"])
    maps = mmcam.explain(model, picture, mmcam.Classes(["dog"]), method="gradcam-signed")
    assert maps["dog"].cam.shape == (56, 56)
    assert model.name == "Own"
    assert model.model is module


def encode(question: str) -> Tensor:
    return torch.tensor([1])


DOORS: dict[str, Any] = {
    "wrap": mmcam.wrap,
    "wrap_vqa": partial(mmcam.wrap_vqa, encode_question=encode, answers=["yes", "no"]),
    "wrap_captioner": partial(mmcam.wrap_captioner, tokenizer=["<start>", "<end>", "a"]),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_what_is_no_module_or_no_transform_is_refused(
    door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ModelError, match=r"a function is not a torch\.nn\.Module, so it has no"):
        door(encode)
    with pytest.raises(ModelError, match=r"prepare='imagenet' cannot be called; give the model's"):
        door(Own(), "imagenet")


def test_labels_are_names_by_number_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for labels in ({1: "dog", 0: "cat"}, {"1": "dog", "0": "cat"}, np.array(["cat", "dog"])):
        assert mmcam.wrap(Own(), labels=labels).labels == ("cat", "dog")
    for wrong, message in (
        ("cat", "the labels 'cat' are a str; give a list"),
        (2, "the labels 2 are a int"),
        ({1: "cat", 2: "dog"}, r"keys \[1, 2\]; give a mapping from the numbers 0 to 1"),
    ):
        with pytest.raises(ModelError, match=message):
            mmcam.wrap(Own(), labels=wrong)  # type: ignore[arg-type]


def test_the_last_block_with_a_grid_is_explained_where_none_is_named() -> None:
    model = wrap(Own(), logits=lambda output: output["scores"])
    assert model.layers == ()
    maps = mmcam.explain(model, np.zeros((40, 60, 3), np.uint8), mmcam.Classes([0]))
    assert next(iter(maps)).layer == "trunk"


def test_a_wrapped_model_of_clips_has_a_window() -> None:
    model = wrap(network(0), frames=16, stride=4, fps=30)
    assert model.window == mmcam.types.Window(frames=16, stride=4, fps=30)


def test_layers_of_a_folder_are_listed_in_order(folder: Path) -> None:
    default, layers = layers_of(folder)
    assert default == ["relu4b"]
    names = [layer.name for layer in layers]
    assert names[:3] == ["conv1", "relu1", "pool1"]
    assert "fc6" not in names
    (relu4b,) = (layer for layer in layers if layer.name == "relu4b")
    assert (relu4b.channels, relu4b.grid) == (2, (4, 4, 6))


@pytest.mark.parametrize("name", ["action", "captioner", "vqa"])
def test_layers_of_every_kind_of_model_are_listed(name: str) -> None:
    default, layers = layers_of(Path(mmcam.data.__path__[0]) / name)
    assert set(default) <= {layer.name for layer in layers}


def test_layers_of_a_name_need_no_weights() -> None:
    default, layers = layers_of("torchvision:squeezenet1_1")
    assert default == ["features"]
    assert {layer.name for layer in layers} >= {"features", "features.3", "classifier.1"}


def test_an_unknown_default_layer_is_refused(folder: Path) -> None:
    change(folder, layer="relu9")
    with pytest.raises(LayerError, match=r"c3d has no layer 'relu9'; nearest: relu"):
        layers_of(folder)


def test_every_family_lists_its_example_or_takes_it() -> None:
    names = model_names()
    by_name = {family for family, row in FAMILIES.items() if row.example != "FOLDER"}
    assert {name.partition(":")[0] for name in names} == by_name
    for family in ("torchvision", "pytorchvideo", "c3d"):
        assert FAMILIES[family].example in names


def test_model_names_are_searched_in_any_case() -> None:
    names = model_names("SlowFast")
    assert "pytorchvideo:slowfast_r50" in names
    assert all("slowfast" in name.lower() for name in names)
    assert model_names("no such model") == []


def test_importing_mmcam_imports_no_family_and_no_plotting() -> None:
    heavy = ["transformers", "pytorchvideo", "timm", "torchvision", "matplotlib", "decord", "av"]
    code = f"import sys, mmcam; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("weights", [{"": 3}, {"cnn": ["a"]}])
def test_names_of_weights_that_are_no_text_are_refused(tmp_path: Path, weights: Any) -> None:
    manifest = {"schema_version": 1, "family": "torchvision", "name": "resnet18"}
    (tmp_path / "mmcam.json").write_text(json.dumps({**manifest, "weights": weights}))
    message = r'has "weights": .*a mapping from parts to names of files'
    with pytest.raises(ModelError, match=message):
        mmcam.load(tmp_path)
