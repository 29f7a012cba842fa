"""What `explain` takes as a batch, `explain_each`, bare modules, layers and tasks."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.engine import batch as engine_batch
from mmcam.errors import InputError, LabelError, LayerError, ModelError
from tests import colour_net
from tests.adapters.tiny_answerers import answerer
from tests.adapters.tiny_captioners import captioner

COUNT = 5
FIRST = mmcam.Classes([0])


class Net(nn.Module):
    """A fully convolutional network: inputs of any size, pooled at the end."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU())
        self.neck = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.neck(self.trunk(pixels)).flatten(2).mean(2))
        return logits


def net(channels: int = 1, **options: Any) -> Classifier:
    return mmcam.wrap(Net(channels), layer="trunk", **options)


def inputs() -> Tensor:
    return torch.randn(COUNT, 1, 6, 8, generator=torch.Generator().manual_seed(0))


def assert_same(results: Any, expected: Any) -> None:
    """The results are lists with the same maps, in order."""
    assert isinstance(results, list)
    assert len(results) == len(expected)
    for maps, others in zip(results, expected, strict=True):
        assert [(e.label, e.layer) for e in maps] == [(e.label, e.layer) for e in others]
        for explanation, other in zip(maps, others, strict=True):
            torch.testing.assert_close(explanation.cam, other.cam)


class Indexed(Dataset[Any]):
    """A dataset with a length and an index, which never ends if it is iterated."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return inputs()[index % COUNT], index


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter({"label": 1, "image": row} for row in inputs())


def labelled() -> TensorDataset:
    return TensorDataset(inputs(), torch.arange(COUNT))


def as_mapping(items: list[Any]) -> dict[str, Any]:
    return {"labels": [label for _, label in items], "pixel_values": torch.stack(list(inputs()))}


BATCHES: dict[str, Callable[[], Any]] = {
    "list": lambda: list(inputs()),
    "tuple": lambda: tuple(inputs()),
    "tensor": inputs,
    "generator": lambda: (row for row in inputs()),
    "labelled": lambda: ((row, 7) for row in inputs()),
    "mappings": lambda: [{"pixels": row} for row in inputs()],
    "batches": lambda: inputs().split(2),
    "labelled batches": lambda: iter([(inputs()[:3], [0, 1, 2]), (inputs()[3:], [3, 4])]),
    "dataset": Indexed,
    "stream": Streamed,
    "loader": lambda: DataLoader(labelled(), batch_size=2),
    "loader's iterator": lambda: iter(DataLoader(labelled(), batch_size=2)),
    "loader of one": lambda: DataLoader(labelled(), batch_size=1),
    "loader without batches": lambda: DataLoader(labelled(), batch_size=None),
    "loader of tensors": lambda: DataLoader(list(inputs()), batch_size=2),  # type: ignore[arg-type]
    "loader of mappings": lambda: DataLoader(labelled(), batch_size=COUNT, collate_fn=as_mapping),
    "loader of items": lambda: DataLoader(labelled(), batch_size=2, collate_fn=list),
    "loader of tuples": lambda: DataLoader(
        labelled(), batch_size=2, collate_fn=lambda items: tuple(zip(*items, strict=True))
    ),
    "loader of lists": lambda: DataLoader(
        labelled(), batch_size=2, collate_fn=lambda items: ([row for row, _ in items], "labels")
    ),
    "batch of a processor": lambda: UserDict(pixel_values=inputs()),
    "mapping of a list": lambda: {"label": [7] * COUNT, "image": list(inputs())},
    "mapping of a tuple": lambda: {"image": tuple(inputs())},
    "mappings of lists": lambda: iter([{"image": list(inputs()[:3])}, {"image": [*inputs()[3:]]}]),
    "loader of mappings of lists": lambda: DataLoader(
        labelled(), batch_size=2, collate_fn=lambda items: {"image": [row for row, _ in items]}
    ),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_anything_that_can_be_iterated_is_a_batch(kind: str) -> None:
    expected = [mmcam.explain(net(), row, FIRST) for row in inputs()]
    results = mmcam.explain(net(), BATCHES[kind](), FIRST, batch=3)
    assert_same(results, expected)
    each = mmcam.explain_each(net(), BATCHES[kind](), FIRST, batch=2)
    assert_same(list(each), expected)


def test_pictures_and_paths_may_be_mixed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = net(3, prepare=Preprocess())
    expected = mmcam.explain(model, pixels, FIRST)
    sources = (pixels, tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels))
    assert_same(
        mmcam.explain(model, (*sources, mmcam.Sample(pixels=pixels)), FIRST), [expected] * 5
    )


def test_a_single_source_gives_no_list() -> None:
    for source in (inputs()[0], {"image": inputs()[0]}, np.zeros((6, 8), np.uint8)):
        assert isinstance(mmcam.explain(net(), source, FIRST), mmcam.Explanations)


def test_one_item_gives_a_list_of_one() -> None:
    assert len(mmcam.explain(net(), inputs()[:1], FIRST)) == 1
    assert len(mmcam.explain(net(), {"image": [inputs()[0]]}, FIRST)) == 1
    assert mmcam.explain(net(), iter(()), FIRST) == []


def test_an_item_without_a_picture_is_refused() -> None:
    with pytest.raises(InputError, match=r"keys 'x', 'y' does not say which.*name it pixel_values"):
        mmcam.explain(net(), [{"x": inputs()[0], "y": 1}], FIRST)
    with pytest.raises(InputError, match=r"\(\) holds no picture"):
        mmcam.explain(net(), [()], FIRST)


# Pictures of mixed sizes.


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_inputs_of_mixed_sizes_are_explained_like_each_alone(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(6, 8), (9, 5), (6, 8), (7, 7), (9, 5), (6, 8)]
    sources = [torch.randn(1, *size) for size in sizes]
    expected = [mmcam.explain(net(), source) for source in sources]
    runs: list[int] = []
    run_model = engine_batch.run_model

    def counted(adapter: Any, rows: Any) -> Any:
        runs.append(len(rows.pixels))
        return run_model(adapter, rows)

    monkeypatch.setattr(engine_batch, "run_model", counted)
    assert_same(mmcam.explain(net(), sources, batch=batch), expected)
    rows = {1: [1] * 6, 3: [2, 1, 1, 1, 1], 8: [3, 2, 1]}
    assert runs == rows[batch]


def test_mixed_sizes_keep_their_tasks_and_transforms() -> None:
    def transform(image: Any) -> Tensor:
        return torch.from_numpy(np.array(image, np.float32)).movedim(-1, 0) / 255

    model = net(3, prepare=transform)
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 256, (h, 8, 3), dtype=np.uint8) for h in (6, 9, 6, 9, 6)]
    tasks = [mmcam.Classes([0]), mmcam.Classes([1]), mmcam.Classes([2]), mmcam.Classes(top=3),
             mmcam.Target.logit(1)]  # fmt: skip
    expected = [mmcam.explain(model, s, t) for s, t in zip(sources, tasks, strict=True)]
    assert_same(mmcam.explain(model, sources, tasks), expected)
    assert_same(mmcam.explain(model, sources, iter(tasks), batch=2), expected)


# One by one.


def test_results_come_in_order_and_sources_are_read_when_they_are_needed() -> None:
    read: list[int] = []

    def sources() -> Iterator[Tensor]:
        for number in itertools.count():
            read.append(number)
            yield torch.full((1, 6, 8), float(number))

    results = mmcam.explain_each(net(), sources(), FIRST, batch=3)
    assert read == []
    scores = [next(results)[0].score for _ in range(4)]
    assert read == [0, 1, 2, 3, 4, 5]
    expected = [mmcam.explain(net(), torch.full((1, 6, 8), float(n)), FIRST)[0] for n in range(4)]
    assert scores == pytest.approx([explanation.score for explanation in expected], rel=1e-5)


def test_thousands_of_results_need_no_more_memory_than_a_few() -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def sources() -> Iterator[Tensor]:
        for _ in range(3000):
            tensor = torch.zeros(1, 6, 8)
            alive.add(tensor)
            yield tensor

    counts = []
    for number, maps in enumerate(mmcam.explain_each(net(), sources(), FIRST, batch=4)):
        alive.add(maps)
        alive.add(maps[0])
        if number % 500 == 499:
            gc.collect()
            counts.append(len(gc.get_objects()))
        most = max(most, len(alive))
    assert most <= 16  # two batches of tensors, and the last results
    assert max(counts[1:]) - counts[1] < 200


def test_a_request_that_cannot_work_is_refused_before_any_source_is_read() -> None:
    def sources() -> Iterator[Any]:
        raise AssertionError
        yield

    with pytest.raises(LayerError, match="list of layers is empty"):
        mmcam.explain_each(net(), sources(), FIRST, layers=[])
    with pytest.raises(LabelError, match="is not a task"):
        mmcam.explain_each(net(), sources(), "dog")
    with pytest.raises(ModelError, match="actions need a clip"):
        mmcam.explain_each(net(), sources(), mmcam.Actions())


# Tasks.


@pytest.mark.parametrize(
    ("sources", "tasks", "message"),
    [
        (3, [FIRST] * 2, "2 tasks for more than 2 sources; give one task for all, or one for each"),
        (2, [FIRST] * 3, "3 tasks for 2 sources"),
        (2, iter([FIRST] * 3), "more tasks for 2 sources"),
    ],
)
def test_tasks_and_sources_must_be_as_many(sources: int, tasks: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        mmcam.explain(net(), inputs()[:sources], tasks)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("explain", [mmcam.explain, mmcam.explain_each])
def test_a_single_source_has_one_task(explain: Callable[..., Any], batch: int) -> None:
    for tasks in ([FIRST] * 2, iter([FIRST] * 2), [[mmcam.Target.logit(0)]] * 2):
        with pytest.raises(LabelError, match="tasks for 1 sources; give one task for all"):
            explain(net(), inputs()[0], tasks, batch=batch)
    (maps,) = mmcam.explain_each(net(), inputs()[0], [FIRST], batch=batch)
    assert maps[0].label == "0"


def test_each_of_several_tasks_must_be_one() -> None:
    with pytest.raises(LabelError, match="'dog' is not a task"):
        mmcam.explain(net(), inputs()[:2], iter([FIRST, "dog"]))


def test_a_source_may_have_a_list_of_targets_as_its_task() -> None:
    targets = [[mmcam.Target.logit(0), mmcam.Target.logit(2)], [mmcam.Target.logit(1)]]
    results = mmcam.explain(net(), inputs()[:2], targets)
    assert [[e.label for e in maps] for maps in results] == [["0", "2"], ["1"]]


def test_a_model_has_a_usual_task() -> None:
    maps = mmcam.explain(net(), inputs()[0])
    assert maps.task == "classes"
    assert_same([maps], [mmcam.explain(net(), inputs()[0], mmcam.Classes())])
    clip = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    maps = mmcam.explain(colour_net.model(clips=True), clip)
    assert (maps.task, maps[0].target.kind) == ("actions", "action")


def test_a_captioner_explains_the_caption_of_the_sample_or_its_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    maps = mmcam.explain(captioner(), pixels)
    assert maps.task == "caption"
    assert maps.text is not None
    assert maps.text["generated"]


def test_an_answerer_needs_a_question() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    sample = mmcam.Sample(pixels=pixels, text="what is it ?")
    assert mmcam.explain(answerer(), sample).task == "answers"
    with pytest.raises(
        LabelError, match=r"question for 'array' is empty; ask something: Answers\("
    ):
        mmcam.explain(answerer(), pixels)


# Layers.


def test_layers_may_be_modules() -> None:
    model = net()
    module: Any = model.model
    expected = mmcam.explain(model, inputs()[0], FIRST, layers=["trunk.0", "neck"])
    for layers in ([module.trunk[0], module.neck], ["neck", module.trunk[0]], (module.neck, "*.0")):
        maps = mmcam.explain(model, inputs()[0], FIRST, layers=layers)
        assert {"trunk.0", "neck"} <= {e.layer for e in maps}
        for explanation in expected:
            (other,) = maps.select(layer=explanation.layer)
            torch.testing.assert_close(other.cam, explanation.cam)
    (explanation,) = mmcam.explain(model, inputs()[0], FIRST, layers=module.neck)
    assert explanation.layer == "neck"


def test_a_default_layer_may_be_a_module() -> None:
    module = Net()
    assert mmcam.wrap(module, layer=module.neck).layers == ("neck",)
    assert mmcam.wrap(module, layer=[module.neck[0], "trunk"]).layers == ("neck.0", "trunk")


def test_a_module_of_another_model_is_refused() -> None:
    model = net()
    with pytest.raises(LayerError, match=r"Conv2d given as a layer is not a part of Net.*copy"):
        mmcam.explain(model, inputs()[0], FIRST, layers=Net().trunk[0])
    with pytest.raises(LayerError, match=r"Net is Net itself; give a layer inside it"):
        mmcam.explain(model, inputs()[0], FIRST, layers=[model.model])
    with pytest.raises(LayerError, match=r"Sequential given as a layer is not a part of Net"):
        mmcam.wrap(Net(), layer=Net().trunk)


# Bare modules.


def test_a_bare_module_takes_tensors() -> None:
    module = Net()
    expected = [mmcam.explain(net(), row, FIRST, layers="neck") for row in inputs()]
    assert_same(mmcam.explain(module, inputs(), FIRST, layers=module.neck), expected)
    assert_same([mmcam.explain(module, inputs()[0], FIRST, layers="neck")], expected[:1])
    loader = DataLoader(labelled(), batch_size=2)
    assert_same(list(mmcam.explain_each(module, loader, FIRST, layers="neck")), expected)
    assert list(mmcam.explain_each(module, [])) == []
    assert module.training


def test_a_bare_module_takes_batches_of_clips() -> None:
    module = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    (maps,) = mmcam.explain(module, torch.randn(1, 2, 4, 6, 8))
    assert maps.task == "actions"
    assert maps[0].cam.shape == (4, 6, 8)


def test_a_bare_module_says_how_to_wrap_it_for_pictures() -> None:
    message = r"Net is a bare module.*mmcam\.wrap\(module, prepare=transform\)"
    for source in ("a.png", np.zeros((6, 8), np.uint8), [np.zeros((6, 8), np.uint8)]):
        with pytest.raises(ModelError, match=message):
            mmcam.explain(Net(), source)
    with pytest.raises(InputError, match=r"first source is a tensor and a later one a ndarray"):
        mmcam.explain(Net(), [inputs()[0], np.zeros((6, 8), np.uint8)])


def test_a_model_of_timm_in_memory_knows_how_its_pictures_are_prepared() -> None:
    import timm

    module = timm.create_model("resnet10t", num_classes=5)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    maps = mmcam.explain(module, pixels)
    config = timm.data.resolve_model_data_config(module)
    transform = timm.data.create_transform(**config)
    expected = mmcam.explain(mmcam.wrap(module, prepare=transform), pixels, layers=maps[0].layer)
    assert maps.model["name"] == "timm:resnet10t"
    assert maps[0].label == expected[0].label
    assert maps[0].score == pytest.approx(expected[0].score, rel=1e-3)
    torch.testing.assert_close(maps[0].cam, expected[0].cam, rtol=1e-2, atol=1e-4)
    assert maps[0].placement.box == pytest.approx(expected[0].placement.box, abs=1)
    named = timm.create_model("resnet10t")
    assert mmcam.explain(named, pixels, mmcam.Classes(["tabby"]))[0].target.index == 281


def test_a_model_of_transformers_in_memory_needs_its_processor() -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 4, 4, 4], depths=[1, 1, 1, 1])
    module = ResNetForImageClassification(config)
    with pytest.raises(ModelError, match=r"mmcam\.from_transformers\(model, processor\)"):
        mmcam.explain(module, np.zeros((6, 8, 3), np.uint8))
    assert mmcam.explain(module, torch.randn(3, 64, 64))[0].target.kind == "class"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm:resnet18", r"'timm:resnet18' is not a model.*mmcam\.load\('timm:resnet18'\)"),
        (None, r"a NoneType is not a model; give the result of mmcam\.load or mmcam\.wrap"),
        (Net, r"a type is not a model"),
    ],
)
def test_what_is_no_model_is_told(
    model: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ModelError, match=message):
        mmcam.explain(model, inputs()[0])
