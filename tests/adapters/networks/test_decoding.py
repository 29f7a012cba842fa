"""Beam search against exhaustive search."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mmcam.adapters.networks.decoding import State, beam_search

START, END = 0, 1
TOKENS = 4


def table(seed: int, sharp: float = 2.0) -> Tensor:
    """Logits of the next token after each (step, last token)."""
    return sharp * torch.randn(9, TOKENS, TOKENS, generator=torch.Generator().manual_seed(seed))


def step_of(logits: Tensor):
    def step(state: State, last: Tensor) -> tuple[Tensor, State]:
        (count,) = state
        return logits[count.long(), last], (count + 1,)

    return step


def total(logits: Tensor, tokens: list[int]) -> float:
    """The log-probability of a sentence; START is never generated."""
    sum_, last = 0.0, START
    for step, token in enumerate(tokens):
        row = logits[step, last].clone()
        row[START] = -math.inf
        sum_ += float(row.log_softmax(0)[token])
        last = token
    return sum_


def search(logits: Tensor, num_beams: int, max_new_tokens: int) -> list[int]:
    return beam_search(
        step_of(logits),
        (torch.zeros(1),),
        start=START,
        end=END,
        suppressed_tokens=[START],
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_all_finds_the_likeliest_sentence(seed: int) -> None:
    logits, max_new_tokens = table(seed), 3
    ended = [
        [*words, END]
        for length in range(max_new_tokens + 1)
        for words in itertools.product(range(2, TOKENS), repeat=length)
    ]
    best = max(ended, key=lambda tokens: total(logits, tokens))
    assert search(logits, num_beams=TOKENS**4, max_new_tokens=max_new_tokens) == best


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    logits, last, greedy = table(seed), START, []
    for step in range(5):
        row = logits[step, last].clone()
        row[START] = -math.inf
        last = int(row.argmax())
        if last == END or step < 4:
            greedy.append(last)
        if last == END:
            break
    assert search(logits, num_beams=1, max_new_tokens=4) == greedy


def test_a_sentence_that_never_ends_is_cut_off_without_an_end() -> None:
    logits = table(0)
    logits[:, :, END] = -50
    tokens = search(logits, num_beams=2, max_new_tokens=3)
    assert len(tokens) == 3
    assert END not in tokens


def test_suppressed_tokens_are_never_generated() -> None:
    logits = table(1)
    logits[:, :, START] = 50
    assert START not in search(logits, num_beams=3, max_new_tokens=4)


def test_the_state_follows_its_sentence() -> None:
    """A state that depends on the previous tokens must stay with their sentence."""

    def step(state: State, last: Tensor) -> tuple[Tensor, State]:
        (history,) = state  # [row, 1]: the sum of tokens so far
        history = history + last[:, None]
        logits = torch.zeros(len(last), TOKENS)
        logits[:, 2], logits[:, 3] = 1.0, 1.1
        logits[history[:, 0] == 4, END] = 9.0  # only 2 + 2 ends
        return logits, (history,)

    tokens = beam_search(
        step,
        (torch.zeros(1, 1),),
        start=0,
        end=END,
        suppressed_tokens=[0],
        num_beams=4,
        max_new_tokens=4,
    )
    assert tokens == [2, 2, END]
