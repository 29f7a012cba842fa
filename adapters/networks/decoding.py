"""What a recurrent captioner says by itself: beam search; greedy is a beam of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""A decoder's memory, each tensor with a row for each sentence that is followed."""

Step = Callable[[State, Tensor], tuple[Tensor, State]]
"""(state, the last token of each row) -> (logits `[row, token]` of the next, the new state)."""


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
    """The likeliest sentence that was found, as tokens, with `end` behind it if it came to one.

    Sentences are ranked by the sum of their log-probabilities, as in Vinyals et al. 2015 (section
    4.3); `suppressed_tokens` have none. A sentence that ends gives up its place in the beam. If no
    sentence has ended at the limit, the likeliest one is cut off there.

    Args:
        step: one step of the decoder.
        state: its memory for one picture, one row.
        start: the first token, which is given.
        end: the token that ends a sentence.
        suppressed_tokens: tokens that are never said.
        num_beams: how many sentences are kept at each step.
        max_new_tokens: the most tokens, the end not counted.
    """
    last = torch.full((1,), start, device=state[0].device)
    totals = torch.zeros(1, device=state[0].device)
    said: list[list[int]] = [[]]
    best: tuple[float, list[int]] | None = None
    for _ in range(max_new_tokens + 1):
        logits, state = step(state, last)
        logits = logits.float()
        logits[:, list(suppressed_tokens)] = -torch.inf
        scores = totals[:, None] + logits.log_softmax(1)
        chosen, places = scores.flatten().topk(min(num_beams, scores.numel()))
        rows, tokens = places // scores.shape[1], places % scores.shape[1]
        ended = tokens == end
        for score, row in zip(chosen[ended].tolist(), rows[ended].tolist(), strict=True):
            if best is None or score > best[0]:
                best = (score, [*said[row], end])
        rows, last, totals = rows[~ended], tokens[~ended], chosen[~ended]
        # Going on only lowers a sentence's total.
        if not len(rows) or (best is not None and best[0] >= float(totals[0])):
            break
        said = [
            [*said[row], token] for row, token in zip(rows.tolist(), last.tolist(), strict=True)
        ]
        state = tuple(part[rows] for part in state)
    return best[1] if best else said[0][:max_new_tokens]
