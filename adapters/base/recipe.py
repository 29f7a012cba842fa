"""The specification from which a family builds one of its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.weights import State, load_weights
from mmcam.errors import ModelError
from mmcam.types import Weights


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model of a family: its name in the family, arguments, weights, and the user's overrides.

    `parts` are the recipes, later the adapters, of models that this one contains, such as the CNN
    of a captioner. `vocabulary` is a file of words, `special` maps the roles of special tokens to
    words, and `max_question_tokens` is the maximum number of words of a question. `weights` is a
    file. Without a file, `pretrained` selects the library's own weights, which it may download;
    False leaves the model untrained. `revision` is a branch, tag or commit of a model on the hub.
    """

    family: str
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    pretrained: bool = True
    revision: str | None = None
    labels: Sequence[str] = ()
    preprocess: Mapping[str, Any] | None = None
    layers: Sequence[str] = ()
    vocabulary: Path | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    max_question_tokens: int | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The model's name as users write it."""
        return f"{self.family}:{self.name}" if self.name else self.family

    @property
    def downloads(self) -> bool:
        """Whether the library's own weights are used."""
        return self.pretrained and self.weights is None

    @property
    def hub_options(self) -> dict[str, str]:
        """The arguments of `from_pretrained` that choose a revision."""
        return {} if self.revision is None else {"revision": self.revision}

    def load_weights(
        self, model: nn.Module, rename: Callable[[State], State] | None = None
    ) -> Weights | None:
        """Load the weights file, if any, and return the source of the weights; None if untrained.

        Raises:
            WeightsError: the file does not fit.
        """
        if self.weights is not None:
            return load_weights(model, self.weights, rename)
        return Weights(source="the library's own") if self.pretrained else None

    def load_decoder_weights(self, model: nn.Module) -> Weights | None:
        """Load the weights file of a model whose CNN (`cnn`, `pool`) already has weights.

        If the file holds the CNN's weights too, they replace these weights. Returns None if there
        is no file.

        Raises:
            WeightsError: the file does not fit.
        """
        parts = ("cnn.", "pool.")

        def with_cnn(state: State) -> State:
            if any(key.startswith(parts) for key in state):
                return state
            loaded = model.state_dict()
            return {key: value for key, value in loaded.items() if key.startswith(parts)} | state

        return None if self.weights is None else load_weights(model, self.weights, with_cnn)

    def preprocessing(self, default: Preprocess) -> Preprocess:
        """The user's preprocessing, or the family's default.

        Raises:
            ModelError: an unknown key or a wrong value in the user's preprocessing.
        """
        return default if self.preprocess is None else Preprocess.from_dict(self.preprocess)


def layer_from_path(model: nn.Module, path: str) -> str:
    """A layer's name from a path with negative indices, such as "layers.-1.norm1".

    Raises:
        ModelError: the model has no such layer.
    """
    module, names = model, []
    for part in path.split("."):
        children = dict(module.named_children())
        name = part
        if part.startswith("-") and len(children) >= int(part[1:]):
            name = list(children)[int(part)]
        if name not in children:
            raise ModelError(
                f"{type(model).__name__} has no layer '{path}' ('{part}' is missing); name the "
                "layer to explain"
            )
        names.append(name)
        module = children[name]
    return ".".join(names)
