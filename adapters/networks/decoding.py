"""Generation with a recurrent captioner: beam search; a beam of one is greedy search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""A decoder's state: tensors with a row for each sentence of the beam."""

Step = Callable[[State, Tensor], tuple[Tensor, State]]
"""(state, last token of each row) -> (logits `[row, token]` of the next token, new state)."""


def beam_search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    suppressed_tokens: Sequence[int] = (),
    num_beams: int = 1,
    max_new_tokens: int = 20,
) -> list[int]:
    """The most probable sentence found, as tokens; `end` is included if the sentence has ended.

    Sentences are ranked by the sum of their tokens' log-probabilities, as in the beam search of
    Vinyals et al. 2015; `suppressed_tokens` have probability 0. A sentence that ends leaves the
    beam. If no sentence has ended at the limit, the most probable sentence is cut off there.

    Args:
        step: one step of the decoder.
        state: the decoder's state for one picture, with one row.
        start: the given first token.
        end: the token that ends a sentence.
        suppressed_tokens: tokens that are never generated.
        num_beams: the number of sentences kept at each step.
        max_new_tokens: the maximum number of tokens, `end` not counted.
    """
    last = torch.full((1,), start, device=state[0].device)
    totals = torch.zeros(1, device=state[0].device)
    sentences: list[list[int]] = [[]]
    best: tuple[float, list[int]] | None = None
    for _ in range(max_new_tokens + 1):  # one more step, for `end`
        logits, state = step(state, last)
        logits = logits.float()
        logits[:, list(suppressed_tokens)] = -torch.inf
        scores = totals[:, None] + logits.log_softmax(1)
        top_scores, indices = scores.flatten().topk(min(num_beams, scores.numel()))
        rows, tokens = indices // scores.shape[1], indices % scores.shape[1]
        ended = tokens == end
        for score, row in zip(top_scores[ended].tolist(), rows[ended].tolist(), strict=True):
            if best is None or score > best[0]:
                best = (score, [*sentences[row], end])
        rows, last, totals = rows[~ended], tokens[~ended], top_scores[~ended]
        # Further tokens can only lower a sentence's total.
        if not len(rows) or (best is not None and best[0] >= float(totals[0])):
            break
        sentences = [
            [*sentences[row], token]
            for row, token in zip(rows.tolist(), last.tolist(), strict=True)
        ]
        state = tuple(tensor[rows] for tensor in state)
    return best[1] if best else sentences[0][:max_new_tokens]
