"""Whether a core learns over many steps: the classic tasks, an LSTM and plain tanh RNNs side by side.

    python benchmarks/long_range.py [--seeds 2] [--only copy] [--verbose]

adding   two of 200 numbers are marked; their sum is asked for at the end (Hochreiter & Schmidhuber 1997).
         Score: mean squared error; answering 1, the mean, gives 1/6.
copy     ten symbols of eight, 100 blank steps, then the ten again (Arjovsky et al. 2016).
         Score: share of symbols right; guessing gives 1/8.
digits   a digit of scikit-learn's, one row of 8 pixels a step; and the same with 100 steps of noise before it is asked
         for. Score: share right of the 360 digits of the test; guessing gives about 1/10.

All have as many units, the same batches in the same order, the same optimiser and number of steps. The LSTM has
chrono initialisation and one rate; of the RNNs one starts as torch's does and one orthogonal, as the house's do, and
each is given the best of three rates, by its score on the test.
About forty CPU minutes for all of it with two seeds.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steersman.nn.cores import LSTM, RNN, Core, from_torch

Batch = tuple[Tensor, Tensor]
"""Input (batch time feature) and what is asked for at the last steps (batch asked)."""


@dataclass(frozen=True)
class Task:
    features: int
    outputs: int
    """1: a number; more: a class."""
    batch: Callable[[int, np.random.Generator, bool], Batch]
    """Batch of so many rows, drawn anew; of the test where the last argument is True."""
    guess: float
    """The score of guessing."""
    longest: int
    """Steps a core has to remember."""
    steps: int
    """Steps of training."""
    hidden: int = 64
    rows: int = 32


def adding(length: int = 200, **options: int | float) -> Task:
    def batch(rows: int, draw: np.random.Generator, test: bool) -> Batch:
        numbers, marks = draw.random((rows, length)), np.zeros((rows, length))
        half = length // 2
        first, second = draw.integers(0, half, rows), draw.integers(half, length, rows)
        row = np.arange(rows)
        marks[row, first] = marks[row, second] = 1
        x = np.stack((numbers, marks), 2)
        return _tensors(x, (numbers * marks).sum(1, keepdims=True))

    return Task(2, 1, batch, 1 / 6, length, **{"steps": 2000, "hidden": 32} | options)


def copy(blank: int = 100, symbols: int = 10, kinds: int = 8, **options: int | float) -> Task:
    def batch(rows: int, draw: np.random.Generator, test: bool) -> Batch:
        asked = draw.integers(0, kinds, (rows, symbols))
        said = np.full((rows, blank + 2 * symbols), kinds)
        said[:, :symbols] = asked
        said[:, -symbols - 1] = kinds + 1  # now
        return _tensors(np.eye(kinds + 2)[said], asked)

    return Task(kinds + 2, kinds, batch, 1 / kinds, blank + symbols, **{"steps": 5000, "hidden": 128} | options)


def digits(noise: int = 100, **options: int | float) -> Task:
    def batch(rows: int, draw: np.random.Generator, test: bool) -> Batch:
        pictures, labels = _digits()[test]
        chosen = np.arange(len(labels)) if test else draw.integers(0, len(labels), rows)
        x = np.zeros((len(chosen), 8 + noise, 9))
        x[:, :8, :8], x[:, :8, 8] = pictures[chosen], 1  # the last feature tells rows from noise
        x[:, 8:, :8] = draw.random((len(chosen), noise, 8))
        return _tensors(x, labels[chosen, None])

    return Task(9, 10, batch, 0.1, noise + 8, **{"steps": 2500} | options)


@cache
def _digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and test, 360 chosen at random; pictures from 0 to 1."""
    from sklearn.datasets import load_digits

    found = load_digits()
    test = np.random.default_rng(0).permutation(len(found.target)) < 360
    return tuple((found.images[part] / 16, found.target[part]) for part in (~test, test))


def _tensors(x: np.ndarray, asked: np.ndarray) -> Batch:
    return torch.tensor(x, dtype=torch.float32), torch.tensor(asked)


TASKS = {
    "adding, T = 200": adding(),
    "copy, T = 100": copy(),
    "digits by rows": digits(0, steps=1000),
    "digits by rows, then 100 of noise": digits(),
}


def lstm(task: Task) -> Core:
    return LSTM(task.hidden, longest=task.longest).build(task.features)


def rnn(task: Task) -> Core:
    return from_torch(nn.RNN(task.features, task.hidden, batch_first=True))


def orthogonal_rnn(task: Task) -> Core:
    return RNN(task.hidden).build(task.features)


KINDS = {"LSTM": lstm, "tanh RNN": rnn, "tanh RNN, orthogonal": orthogonal_rnn}
RATES = {lstm: (1e-2,), rnn: (3e-4, 1e-3, 3e-3), orthogonal_rnn: (3e-4, 1e-3, 3e-3)}
"""Learning rates of Adam."""
Kind = Callable[[Task], Core]


def learned(
    task: Task, kind: Kind, rate: float, seed: int = 0, say: Callable[[str], None] = lambda text: None
) -> float:
    """The score on a test after training: mean squared error of numbers, share right of classes."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    core = kind(task)
    head = nn.Linear(core.size, task.outputs)
    weights = [*core.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(weights, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, task.steps, pct_start=0.1)

    def answers(x: Tensor, asked: Tensor) -> Tensor:
        y, _ = core(x, core.initial(len(x)))
        return head(y[:, -asked.shape[1] :])

    for step in range(task.steps):
        x, asked = task.batch(task.rows, draw, False)
        out = answers(x, asked)
        if task.outputs == 1:
            loss = F.mse_loss(out[..., 0], asked.float())
        else:
            loss = F.cross_entropy(out.flatten(0, 1), asked.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 249:
            say(f"  step {step + 1}: loss {float(loss.detach()):.4f}")
    with torch.no_grad():
        x, asked = task.batch(500, np.random.default_rng(2_000_000), True)
        out = answers(x, asked)
    if task.outputs == 1:
        return float(F.mse_loss(out[..., 0], asked.float()))
    return float((out.argmax(2) == asked).float().mean())


def best(task: Task, kind: Kind, seed: int, say: Callable[[str], None]) -> tuple[float, float]:
    """The best score over the rates, and that rate."""
    found = [(learned(task, kind, rate, seed, say), rate) for rate in RATES[kind]]
    return (min if task.outputs == 1 else max)(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="tasks with this in their name")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    say = print if options.verbose else lambda text: None
    print(
        "| task | model | units | score of each seed (rate) | guessing | CPU seconds |\n" + "|---" * 6 + "|", flush=True
    )
    for name, task in TASKS.items():
        for title, kind in KINDS.items() if options.only in name else ():
            began = time.process_time()
            found = [best(task, kind, seed, say) for seed in range(options.seeds)]
            scores = ", ".join(f"{score:.2g} ({rate:g})" for score, rate in found)
            seconds = time.process_time() - began
            print(f"| {name} | {title} | {task.hidden} | {scores} | {task.guess:.2g} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
