"""The 1,000 classes of ImageNet by their WordNet ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

CLASSES = 1000


def has_imagenet_classes(labels: Sequence[str]) -> bool:
    """Whether these are ImageNet's 1,000 classes in their usual order.

    Publishers write some names differently ("crane bird", "tench, Tinca tinca"), so it is enough
    that most labels begin with the first WordNet name of their class.
    """
    if len(labels) != CLASSES:
        return False
    names = (name.casefold() for name in _synsets().values())
    matches = sum(
        label.casefold().startswith(name) for label, name in zip(labels, names, strict=True)
    )
    return matches > CLASSES / 2


def imagenet_index(wordnet_id: str) -> int | None:
    """The index of the class with this WordNet id; None if it is not one of the 1,000."""
    ids = list(_synsets())
    return ids.index(wordnet_id) if wordnet_id in ids else None


@cache
def _synsets() -> dict[str, str]:
    """WordNet ids and first names of the classes in order, from the files of timm's package."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return {
        wordnet_id: info.label_name_to_description(wordnet_id).split(",")[0]
        for wordnet_id in info.label_names()
    }
