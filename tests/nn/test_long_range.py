"""Cores learn over many steps: the tasks of benchmarks/long_range.py, shorter."""

import numpy as np
import pytest
import torch
from small import benchmark

long_range = benchmark("long_range")
adding, copy, digits, learned, lstm, rnn = (
    getattr(long_range, name) for name in ("adding", "copy", "digits", "learned", "lstm", "rnn")
)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_lstm_adds_over_a_hundred_steps_and_a_plain_rnn_does_not(seed):
    task = adding(100, steps=900)
    assert learned(task, lstm, 1e-2, seed) < 0.03
    assert learned(task, rnn, 1e-3, seed) > 0.12


def test_an_lstm_keeps_a_digit_through_noise_and_a_plain_rnn_does_not():
    pytest.importorskip("sklearn")
    task = digits(100, steps=1700)
    assert learned(task, lstm, 1e-2) > 0.7
    assert learned(task, rnn, 1e-3) < 0.35


def test_an_lstm_reads_digits_by_rows():
    pytest.importorskip("sklearn")
    task = digits(0, steps=400)
    assert learned(task, lstm, 1e-2) > 0.9


def test_an_lstm_copies_after_sixty_blank_steps():
    task = copy(60, 3, 4, steps=1500, hidden=64)
    assert learned(task, lstm, 1e-2) > 0.8


def test_the_answers_are_in_the_inputs_only_where_they_belong():
    draw = np.random.default_rng(0)
    x, asked = adding(20).batch(50, draw, False)
    torch.testing.assert_close((x[..., 0] * x[..., 1]).sum(1, keepdim=True), asked.float())
    assert x[..., 1].sum(1).tolist() == [2.0] * 50
    x, asked = copy(7, 3, 4).batch(50, draw, False)
    said = x.argmax(2)
    assert torch.equal(said[:, :3], asked)
    assert set(said[:, 3:].flatten().tolist()) == {4, 5}
    assert said[:, -4].tolist() == [5] * 50


def test_the_digits_of_the_test_are_not_trained_on():
    pytest.importorskip("sklearn")
    (train, _), (test, labels) = long_range._digits()
    assert (len(train), len(test)) == (1437, 360)
    assert not {picture.tobytes() for picture in train} & {picture.tobytes() for picture in test}
    assert np.bincount(labels).max() / len(labels) < 0.14
