"""Greedy, sampled and beam search on toys that can be counted by hand."""

from itertools import pairwise, product
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.data.vocabulary import BEGIN, END
from steersman.nn.decoding import Sampling, beam, follow, greedy, largest, sample

A, B = 4, 5


def chain(table):
    """A step whose logits depend on the last token alone; the state counts the steps of each row."""

    def step(token, state):
        return table[token].log(), (state[0] + 1,)

    return step


def toy():
    """After the begin A is likelier than B, but B ends at once."""
    table = torch.zeros(6, 6)
    table[BEGIN, A], table[BEGIN, B] = 0.6, 0.4
    table[A, END], table[A, A], table[A, B] = 0.4, 0.35, 0.25
    table[B, END], table[B, A] = 0.95, 0.05
    return chain(table)


def random_chain(seed: int, vocabulary: int = 9):
    generator = torch.Generator().manual_seed(seed)
    return chain(torch.rand(vocabulary, vocabulary, generator=generator) ** 4 + 1e-3)


START = (torch.zeros(1),)


def rows(num: int):
    return (torch.zeros(num),)


def test_greedy_by_hand():
    (said,) = greedy(toy(), START, 1, 10)
    assert said.tokens == [A]
    assert said.score == pytest.approx(log(0.6 * 0.4))
    assert said.ended


def test_a_beam_of_two_finds_what_greedy_misses_by_hand():
    best, second = beam(toy(), START, 1, 10, beam_width=2, length_penalty=0)[0]
    assert best.tokens == [B]
    assert best.score == pytest.approx(log(0.4 * 0.95))
    assert second.tokens == [A]
    assert second.score == pytest.approx(log(0.6 * 0.4))


def test_length_normalisation_by_hand():
    table = torch.zeros(6, 6)
    table[BEGIN, A] = 1
    table[A, END], table[A, B] = 0.5, 0.5
    table[B, END] = 1
    short = beam(chain(table), START, 1, 10, beam_width=2, length_penalty=0)[0]
    assert [one.score for one in short] == pytest.approx([log(0.5)] * 2)
    longer = beam(chain(table), START, 1, 10, beam_width=2, length_penalty=1)[0]
    assert [one.tokens for one in longer] == [[A, B], [A]]
    assert [one.normalised(1) for one in longer] == pytest.approx([log(0.5) / 3, log(0.5) / 2])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), length_penalty=st.sampled_from([0.0, 0.7, 1.0]))
def test_a_beam_of_one_is_greedy(seed, length_penalty):
    step = random_chain(seed)
    plain, searched = (
        greedy(step, rows(3), 3, 12),
        beam(step, rows(3), 3, 12, beam_width=1, length_penalty=length_penalty),
    )
    for one, (other,) in zip(plain, searched, strict=True):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.ended == other.ended


def test_the_best_score_never_falls_with_a_wider_beam_on_the_toy():
    for step in (toy(), random_chain(3), random_chain(7)):
        scores = [
            beam(step, START, 1, 6, beam_width=beam_width, length_penalty=0)[0][0].score
            for beam_width in (1, 2, 3, 5, 8, 20)
        ]
        assert scores == sorted(scores)


def test_a_beam_as_wide_as_all_there_is_finds_the_best_there_is():
    step, max_length = random_chain(11, 7), 3
    logits = torch.stack([step(torch.tensor([t]), START)[0][0] for t in range(7)])
    logits[:, [0, 1, 3]] = -torch.inf
    chances = logits.log_softmax(1)

    def total(tokens):
        line = [BEGIN, *tokens, END]
        return sum(chances[a, b].item() for a, b in pairwise(line))

    others = [t for t in range(4, 7)]
    every = [list(tokens) for n in range(max_length) for tokens in product(others, repeat=n)]
    best = max(every, key=total)
    found = beam(step, START, 1, max_length, beam_width=60, length_penalty=0)[0][0]
    assert found.tokens == best
    assert found.score == pytest.approx(total(best), abs=1e-4)


def test_rows_together_are_as_rows_alone():
    """Each row's logits depend on its own state too, so a state that strays is seen."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(5, 9, 9, generator=generator) * 2

    def step(token, state):
        which, before = state
        return table[which, token] + table[which, before], (which, token)

    which = torch.arange(5)
    together = beam(step, (which, torch.zeros(5, dtype=torch.int64)), 5, torch.tensor([3, 9, 4, 9, 2]), beam_width=3)
    for row, limit in enumerate([3, 9, 4, 9, 2]):
        alone = beam(step, (which[row : row + 1], torch.zeros(1, dtype=torch.int64)), 1, limit, beam_width=3)[0]
        assert [one.tokens for one in alone] == [one.tokens for one in together[row]]


def test_what_never_ends_is_cut_at_its_limit_and_says_so():
    table = torch.zeros(6, 6)
    table[:, A], table[:, B] = 0.7, 0.3
    limits = torch.tensor([2, 4])
    for said in (greedy(chain(table), rows(2), 2, limits), [b[0] for b in beam(chain(table), rows(2), 2, limits, 2)]):
        assert [one.tokens for one in said] == [[A] * 2, [A] * 4]
        assert not any(one.ended for one in said)


def test_marks_are_never_said():
    step = chain(torch.tensor([[0.3, 0.3, 0.01, 0.3, 0.09, 0.0]]).repeat(6, 1))
    assert set(greedy(step, START, 1, 8)[0].tokens) == {A}
    drawn = sample(step, rows(50), 50, 8, generator=torch.Generator().manual_seed(0))
    assert {t for one in drawn for t in one.tokens} == {A}


def test_drawing_follows_temperature_top_k_and_top_p():
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits, generator = chances.log().expand(20000, -1), torch.Generator().manual_seed(0)

    def shares(**options):
        return torch.bincount(Sampling(**options).draw(logits, generator), minlength=4) / len(logits)

    for options, wanted in (
        ({}, chances),
        ({"temperature": 0.5}, chances**2 / (chances**2).sum()),
        ({"temperature": 1e-45}, torch.eye(4)[0]),
        ({"top_k": 2}, torch.tensor([5 / 8, 3 / 8, 0, 0])),
        ({"top_p": 0.7}, torch.tensor([5 / 8, 3 / 8, 0, 0])),
    ):
        torch.testing.assert_close(shares(**options), wanted, atol=0.015, rtol=0)
    assert shares(top_p=0.1).tolist() == shares(temperature=0).tolist() == [1, 0, 0, 0]


def test_the_same_generator_draws_the_same():
    step = random_chain(5)
    once, twice = (sample(step, rows(4), 4, 9, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert once == twice


def test_follow_takes_any_choice():
    said = follow(toy(), START, 1, 3, lambda logits: torch.full((len(logits),), B))
    assert said[0].tokens == [B, B, B]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(10, 3000), k=st.integers(1, 10), seed=st.integers(0, 1000))
def test_largest_is_topk(n, k, seed):
    x = torch.randn(3, n, generator=torch.Generator().manual_seed(seed))
    for ours, theirs in zip(largest(x, k), x.topk(k, 1), strict=True):
        assert torch.equal(ours, theirs)
