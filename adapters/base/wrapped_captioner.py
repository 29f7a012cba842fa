"""The adapter for a captioner of somebody's own, run by functions that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmcam.adapters.base import captions
from mmcam.adapters.base.captioner import PromptlessCaptioner
from mmcam.adapters.base.captions import CaptionOutput, Sentence
from mmcam.adapters.base.classifier import logits_of
from mmcam.adapters.base.outputs import map_tensors, record_outputs, replace_output
from mmcam.adapters.networks.decoding import State, Step, beam_search
from mmcam.adapters.networks.parts import repeat_blocks
from mmcam.errors import LabelError, ModelError, model_errors
from mmcam.tasks import Caption
from mmcam.types import Inputs, Sample

SHAPE = "[batch, step, token]"


@dataclass(kw_only=True)
class WrappedCaptioner(PromptlessCaptioner):
    """A captioner that is run by functions: all steps at once, or one step after the other.

    `run` maps pixels and tokens `[row, step]`, which begin with `start`, to logits `[row, step,
    token]`: those of step k predict the token after token k. With `has_attention` it returns
    (logits, attention `[row, step, height, width]`). `initial_state` and `step`, if given, generate
    a caption (`decoding.Step`); without `run`, they also compute the logits of a given one.

    `encoder` names the part that encodes the picture. While a caption is generated it runs once;
    its output has a row for each picture. `max_positions` is the maximum number of tokens that
    `run` or `step` takes, `start` included.
    """

    start: int
    end: int
    run: Callable[[Tensor, Tensor], Any] | None = None
    initial_state: Callable[[Tensor], Any] | None = None
    step: Step | None = None
    max_positions: int | None = None
    gradient_strategy: str = "auto"
    _is_checked: bool = field(default=False, init=False, repr=False)

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """As `CaptionAdapter.prepare`; the first time, also check that the model is causal.

        Raises:
            LabelError: as `CaptionAdapter.prepare`, or a caption is too long.
            InputError: as `CaptionAdapter.prepare`.
            ModelError: as `CaptionAdapter.prepare`, or a token's logits depend on later tokens.
        """
        inputs = super().prepare(samples, task)
        for sentence in inputs.rest["sentences"]:
            if self.max_positions is not None and len(sentence.tokens) > self.max_positions:
                raise LabelError(
                    f'"{sentence.text}" has {len(sentence.tokens) - 1} tokens, and {self.name} '
                    f"takes at most {self.max_positions - 1}; give a shorter caption"
                )
        if not self._is_checked and self.run is not None:
            with torch.no_grad(), model_errors(self.name, inputs.pixels.shape):
                self._check_causal(inputs.row(0))
        return inputs

    def generate(self, inputs: Inputs, task: Caption) -> tuple[list[Sentence], Any]:
        """The generated caption of each picture, and the output of `encoder`, if named.

        Raises:
            ModelError: the functions return values of the wrong kind.
        """
        limit = task.max_new_tokens
        if self.max_positions is not None:
            limit = min(limit, self.max_positions - 1)
        encoder_output = self._encode(inputs.pixels)
        sentences = []
        for row, pixels in enumerate(inputs.pixels.split(1)):
            step, state = self._decoder(pixels, _row(encoder_output, row))
            tokens = beam_search(
                step,
                state,
                start=self.start,
                end=self.end,
                num_beams=task.num_beams,
                max_new_tokens=limit,
            )
            sentences.append(self.tokenizer.decode(tokens))
        return sentences, encoder_output

    def teacher_force(self, inputs: Inputs, sentences: Sequence[Sentence]) -> CaptionOutput:
        """The logits of given captions, and the model's attention, if any.

        Raises:
            ModelError: the functions return values of the wrong kind.
        """
        tokens = captions.pad_tokens(sentences).to(inputs.pixels.device)
        previous = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens[:, :-1]], 1)
        logits, attention = self._logits(inputs.pixels, repeat_blocks(previous, len(inputs.pixels)))
        return CaptionOutput(logits, sentences, attention=attention)

    def _encode(self, pixels: Tensor) -> Any:
        """The output of `encoder` for a batch of pictures; None if no encoder is named.

        Raises:
            ModelError: the encoder does not run exactly once, or as `_logits`.
        """
        if self.encoder is None:
            return None
        with record_outputs(self.model.get_submodule(self.encoder)) as outputs:
            if self.initial_state is not None:
                self.initial_state(pixels)
            else:
                first = torch.full((len(pixels), 1), self.start, device=pixels.device)
                self._logits(pixels, first)
        if len(outputs) != 1:
            raise ModelError(
                f"encoder='{self.encoder}' of {self.name} runs {len(outputs)} times for a picture; "
                "name the part that encodes the picture once, or leave it out"
            )
        return outputs[0]

    def _decoder(self, pixels: Tensor, encoder_output: Any) -> tuple[Step, State]:
        """One step of generation for a picture, and the state before the first token.

        Raises:
            ModelError: as `_first_state`.
        """
        encoder = self.model.get_submodule(self.encoder or "")
        if self.step is not None:
            with replace_output(encoder, encoder_output):
                return self._step, self._first_state(pixels)

        def step(state: State, last: Tensor) -> tuple[Tensor, State]:
            tokens = torch.cat([state[0], last[:, None]], 1)
            output = map_tensors(encoder_output, lambda tensor: repeat_blocks(tensor, len(tokens)))
            with replace_output(encoder, output):
                logits, _ = self._logits(repeat_blocks(pixels, len(tokens)), tokens)
            return logits[:, -1], (tokens,)

        return step, (torch.empty(1, 0, dtype=torch.long, device=pixels.device),)

    def _first_state(self, pixels: Tensor) -> State:
        """The state of `step` before the first token.

        Raises:
            ModelError: `initial_state` returns no tensors with a row for each picture.
        """
        assert self.initial_state is not None
        state = self.initial_state(pixels)
        if not isinstance(state, (tuple, list)) or not all(isinstance(t, Tensor) for t in state):
            raise ModelError(
                f"initial_state of {self.name} returns a {type(state).__name__}; let it return a "
                "tuple of tensors"
            )
        if any(tensor.ndim == 0 or len(tensor) != len(pixels) for tensor in state):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in state)
            raise ModelError(
                f"initial_state of {self.name} returns tensors of shapes {shapes} for "
                f"{len(pixels)} pictures; let the first axis of each be the picture (transpose "
                "[layer, picture, unit] in initial_state and step)"
            )
        return tuple(state)

    def _step(self, state: State, last: Tensor) -> tuple[Tensor, State]:
        """The user's step, checked.

        Raises:
            ModelError: it does not return (logits `[row, token]`, state).
        """
        assert self.step is not None
        result: Any = self.step(state, last)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ModelError(
                f"step of {self.name} returns a {type(result).__name__}; let it return (logits "
                "[row, token], state)"
            )
        logits, state = result
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(last):
            given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"step of {self.name} returns logits {given} for {len(last)} rows; let it return "
                "(logits [row, token], state)"
            )
        return logits, tuple(state)

    def _logits(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits of the token after each token, and the attention, if any.

        Raises:
            ModelError: the functions return values of the wrong kind.
        """
        attention = None
        if self.run is None:
            state, steps = self._first_state(pixels), []
            for last in tokens.T:
                step_logits, state = self._step(state, last)
                steps.append(step_logits)
            logits = torch.stack(steps, 1)
        else:
            output = self.run(pixels, tokens)
            if self.has_attention:
                output, attention = self._split(output, tokens)
            logits = logits_of(output, SHAPE)
        self._check_logits(logits, tokens)
        return logits, attention

    def _split(self, output: Any, tokens: Tensor) -> tuple[Any, Tensor]:
        """The logits and the attention in the result of `run`.

        Raises:
            ModelError: the result has another structure.
        """
        attention = output[1] if isinstance(output, (tuple, list)) and len(output) == 2 else None
        if (
            not isinstance(attention, Tensor)
            or attention.ndim != 4
            or attention.shape[:2] != tokens.shape
        ):
            given = tuple(attention.shape) if isinstance(attention, Tensor) else "none"
            raise ModelError(
                f"{self.name} has attention=True, but with its logits forward returns attention "
                f"of shape {given} for {tuple(tokens.shape)} tokens; let it return (logits, "
                "attention [batch, step, height, width])"
            )
        return output[0], attention

    def _check_logits(self, logits: Tensor, tokens: Tensor) -> None:
        """Check that there are logits for each step, and for each token of the caption.

        Raises:
            ModelError: there are not.
        """
        if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            raise ModelError(
                f"{self.name} returns logits of shape {tuple(logits.shape)} for tokens of shape "
                f"{tuple(tokens.shape)} (the start token first); let forward return {SHAPE}, with "
                "one step for each token, which predicts the next one"
            )
        highest = max(int(tokens.max()), self.start, self.end)
        if highest >= logits.shape[2]:
            raise ModelError(
                f"{self.name} returns logits for {logits.shape[2]} tokens, but its tokenizer gives "
                f"the token {highest}; give the tokenizer that the model was trained with"
            )

    def _check_causal(self, inputs: Inputs) -> None:
        """Check that the logits of a batch of one picture do not depend on later tokens.

        Raises:
            ModelError: they do.
        """
        (sentence,) = inputs.rest["sentences"]
        if len(sentence.tokens) < 2:
            return
        tokens = torch.tensor([[self.start, *sentence.tokens[:-1]]], device=inputs.pixels.device)
        half = tokens.shape[1] // 2
        whole, _ = self._logits(inputs.pixels, tokens)
        part, _ = self._logits(inputs.pixels, tokens[:, :half])
        difference = _largest_difference(whole[:, :half], part)
        tolerance = 1e-4 if part.dtype in (torch.float32, torch.float64) else 5e-2
        if difference > tolerance * float(part.where(part.isfinite(), 0).abs().max()):
            raise ModelError(
                f"the logits of {self.name} change by {difference:.3g} when later tokens "
                "are left out, but a caption is generated without them; let each step of forward "
                "depend on the tokens up to its own (a causal mask)"
            )
        self._is_checked = True


def _largest_difference(logits: Tensor, others: Tensor) -> float:
    """The largest difference of two logits of the same token; infinite if one alone is finite."""
    finite = logits.isfinite()
    if not torch.equal(finite, others.isfinite()):
        return torch.inf
    return float((logits - others).where(finite, 0).abs().max())


def _row(output: Any, row: int) -> Any:
    """One row of an encoder's output as a batch of one."""
    return map_tensors(output, lambda tensor: tensor[row : row + 1])
