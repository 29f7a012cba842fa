"""The classifier's adapter: labels, logits in outputs, and refused inputs."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.classifier import Classifier, logits_of
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.errors import InputError, LabelError, LayerError, ModelError
from mmcam.types import Inputs, WordNetLabel

NAMES = ("tabby", "Egyptian cat", "crane", "maillot", "crane", "3", "hen")
LOGITS = torch.tensor([[0.0, 5, 1, 2, 3, 4, -1], [9, 1, 2, 3, 4, 5, 6]])


def adapter(labels: tuple[str, ...] = NAMES, **changes: Any) -> Classifier:
    return Classifier(
        name="toy", model=nn.Identity(), preprocess=Preprocess(), labels=labels, **changes
    )


def labels_of(task: mmcam.Classes, logits: Tensor = LOGITS) -> list[list[str]]:
    return [[target.label for target in row] for row in adapter().targets(logits, task)]


@pytest.mark.parametrize("label", ["egyptian cat", "EGYPTIAN CAT", "Egyptian cat", "1", 1])
def test_a_label_is_a_name_in_any_case_or_a_number(label: str | int) -> None:
    first, second = adapter().targets(LOGITS, mmcam.Classes([label]))
    for (target,) in (first, second):
        assert target.label == "Egyptian cat"
        assert target.score(LOGITS).tolist() == [5, 1]


def test_a_name_of_digits_takes_precedence_over_the_number() -> None:
    assert adapter().index("3", 7) == 5
    assert adapter().index("4", 7) == 4


def test_a_name_of_two_classes_is_refused_with_their_numbers() -> None:
    with pytest.raises(LabelError, match=r"'crane' means several classes.*2, 4"):
        labels_of(mmcam.Classes(["crane"]))
    assert labels_of(mmcam.Classes([2, 4])) == [["crane", "crane"]] * 2


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(LabelError, match=r"no label 'tabbi'; nearest: tabby"):
        labels_of(mmcam.Classes(["tabbi"]))


@pytest.mark.parametrize("label", [7, -1, "7", "1000"])
def test_a_number_out_of_range_is_refused(label: str | int) -> None:
    with pytest.raises(LabelError, match=f"no label '{label}'"):
        labels_of(mmcam.Classes([label]))


def test_without_names_labels_are_numbers() -> None:
    bare = adapter(())
    assert bare.label(bare.index("6", 7)) == "6"
    with pytest.raises(LabelError, match="nearest: numbers 0 to 6"):
        bare.index("tabby", 7)


def test_a_label_beyond_the_scores_is_refused_with_both_counts() -> None:
    names = tuple("abcdefghi")
    assert adapter(names).index("g", 7) == 6
    expected = r"'h' is label 7 of the 9 labels .* the model returns 7 scores; give one label for"
    with pytest.raises(LabelError, match=expected):
        adapter(names).targets(LOGITS, mmcam.Classes(["h"]))
    with pytest.raises(LabelError, match=r"is label 1 of the 2 labels .* returns 1 scores"):
        adapter(("n02012849", "n03126707")).index("n03126707", 1)


def imagenet_adapter() -> Classifier:
    """An adapter with the class names of timm, of which "crane" and "maillot" occur twice."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return adapter(tuple(info.index_to_description(i).split(",")[0] for i in range(1000)))


CRANES = {"n02012849": 134, "n03126707": 517}  # the bird, and the machine
"""From ImageNet's own list of classes (`map_clsloc.txt`, less 1)."""


@pytest.mark.parametrize("wordnet_id", CRANES)
def test_a_wordnet_id_decides_between_classes_of_one_name(wordnet_id: str) -> None:
    imagenet = imagenet_adapter()
    index = CRANES[wordnet_id]
    assert imagenet.index(WordNetLabel("crane", wordnet_id), 1000) == index
    assert imagenet.index(wordnet_id, 1000) == index
    with pytest.raises(LabelError, match=r"'crane' means several classes.*134, 517"):
        imagenet.index("crane", 1000)
    # Some publishers call the bird "crane bird", which must not leave the machine for the bird.
    names = [*imagenet.labels]
    names[134] = "crane bird"
    assert adapter(tuple(names)).index(WordNetLabel("crane", wordnet_id), 1000) == index
    (target,) = imagenet.targets(torch.zeros(1, 1000), mmcam.Classes([wordnet_id]))[0]
    assert (target.label, target.index) == ("crane", index)


def test_a_wordnet_id_outside_of_imagenets_classes_is_refused() -> None:
    message = r"WordNet id 'n09999999' is none of the 1,000 ImageNet classes of toy; give the class"
    with pytest.raises(LabelError, match=message):
        imagenet_adapter().index(WordNetLabel("tench", "n09999999"), 1000)


def test_models_of_other_classes_take_the_name_or_labels_that_are_ids() -> None:
    assert adapter().index(WordNetLabel("hen", "n01514859"), 7) == 6
    with pytest.raises(LabelError, match="several classes"):
        adapter().index(WordNetLabel("crane", "n02012849"), 7)
    thousand = adapter((*(f"place {i}" for i in range(999)), "crane"))
    assert thousand.index(WordNetLabel("crane", "n02012849"), 1000) == 999
    tiny = adapter(("n01514859", "n02012849"))
    assert tiny.index(WordNetLabel("crane", "n02012849"), 2) == 1


def test_a_wordnet_label_keeps_its_id() -> None:
    label = pickle.loads(pickle.dumps(WordNetLabel("crane", "n02012849")))
    assert label == "crane"
    assert label.wordnet_id == "n02012849"


def test_each_sample_has_its_own_top_classes() -> None:
    assert labels_of(mmcam.Classes(top=3)) == [
        ["Egyptian cat", "3", "crane"],
        ["tabby", "hen", "3"],
    ]


def test_more_top_classes_than_there_are_is_refused() -> None:
    assert len(labels_of(mmcam.Classes(top=7))[0]) == 7
    with pytest.raises(LabelError, match=r"top=8 is more than the 7 classes of toy"):
        labels_of(mmcam.Classes(top=8))


def test_log_prob_is_the_log_of_the_softmax() -> None:
    ((target,), _) = adapter().targets(LOGITS, mmcam.Classes(["hen"]))
    assert target.log_prob is not None
    torch.testing.assert_close(target.log_prob(LOGITS), LOGITS.softmax(1)[:, 6].log())


def test_actions_are_reported_as_actions() -> None:
    ((target,), _) = adapter().targets(LOGITS, mmcam.Actions(["hen"]))
    assert target.kind == "action"


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        SimpleNamespace(logits=LOGITS, hidden_states=None),
        (LOGITS, torch.zeros(1)),
        [LOGITS],
    ],
)
def test_logits_are_found_in_tensors_named_outputs_and_tuples(output: Any) -> None:
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize("output", [None, (), {"scores": LOGITS}, "cat"])
def test_an_output_without_logits_is_refused(output: Any) -> None:
    with pytest.raises(ModelError, match="no logits were found; wrap it"):
        logits_of(output)


def test_logits_of_every_pixel_are_refused() -> None:
    with pytest.raises(ModelError, match=r"shape \(1, 7, 4, 4\).*pool them"):
        adapter().logits(torch.zeros(1, 7, 4, 4))


def test_a_clip_for_a_model_of_pictures_is_refused() -> None:
    clip = mmcam.Sample(pixels=np.zeros((2, 4, 4, 3), np.uint8), id="jump.mp4")
    with pytest.raises(InputError, match=r"'jump.mp4' is a clip and toy is a model of pictures"):
        adapter().prepare([clip], mmcam.Classes())


def test_a_picture_for_a_model_of_clips_is_refused() -> None:
    picture = mmcam.Sample(pixels=np.zeros((4, 4, 3), np.uint8), id="cat.jpg")
    video = Classifier(name="toy", model=nn.Identity(), preprocess=Preprocess(frames=2))
    with pytest.raises(InputError, match=r"'cat.jpg' is a picture and toy is a model of clips"):
        video.prepare([picture], mmcam.Classes())


def test_inputs_of_several_sizes_are_refused() -> None:
    samples = [mmcam.Sample(pixels=np.zeros((4, side, 3), np.uint8)) for side in (4, 5)]
    with pytest.raises(InputError, match=r"different sizes .*\(3, 4, 4\), \(3, 4, 5\)"):
        adapter().prepare(samples, mmcam.Classes())


def test_the_input_has_the_dtype_of_the_model() -> None:
    half = Classifier(name="toy", model=nn.Linear(2, 2).bfloat16(), preprocess=Preprocess())
    sample = mmcam.Sample(pixels=np.zeros((4, 4, 3), np.uint8))
    assert half.prepare([sample], mmcam.Classes()).pixels.dtype == torch.bfloat16


def test_a_layer_without_a_grid_is_named() -> None:
    inputs = Inputs(pixels=torch.zeros(1, 3, 32, 32), placements=())
    with pytest.raises(LayerError, match=r"layer 'head.fc'.*\(1, 512\)"):
        adapter().grid("head.fc", torch.zeros(1, 512), inputs)
