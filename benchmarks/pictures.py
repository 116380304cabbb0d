"""Attention that moves, beside the usual way of writing it: glimpses, training steps, the variance of REINFORCE.

    python benchmarks/pictures.py                              speed, on made-up pictures of MNIST's size
    python benchmarks/pictures.py --run RUN --data FOLDER      the variance of a glance run's gradient

A figure is the least CPU time of interleaved repeats, on one thread. The plain ways are modules and loops of PyTorch
as public implementations have them: cells that are stepped, glimpses cut out picture by picture (`F.pad` and slices)
or by one gather.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steersman.data.batches import Batch
from steersman.errors import exit_with_message
from steersman.nn.cores import LSTM, RNN
from steersman.nn.drawing import Canvas, Sketch, draw_model
from steersman.nn.glimpses import Glimpse, Sensor, glimpse_model
from steersman.nn.heads import Classification
from steersman.training.recipe import read_records
from steersman.training.run import Run, find

SIZE = 28


def cut(pictures: Tensor, places: Tensor, size: int = 8) -> Tensor:
    """Glimpses one picture after the other, as the usual implementation cuts them."""
    padded, found = F.pad(pictures.float() / 255, (size,) * 4), []
    for picture, place in zip(padded, places, strict=True):
        top, left = ((place + 1) / 2 * SIZE + size / 2).round().long().tolist()
        found.append(picture[top : top + size, left : left + size].flatten())
    return torch.stack(found)


class PlainRam(nn.Module):
    """The recurrent attention model stepped by a cell, with gradients through every step."""

    def __init__(self):
        super().__init__()
        self.what, self.where, self.both = nn.Linear(64, 128), nn.Linear(2, 32), nn.Linear(160, 256)
        self.cell, self.look = nn.RNNCell(256, 256, nonlinearity="relu"), nn.Linear(256, 2)
        self.baseline, self.said = nn.Linear(256, 1), nn.Linear(256, 10)

    def loss(self, pictures: Tensor, labels: Tensor, glimpses: int) -> Tensor:
        place, h = torch.randn(len(pictures), 2) * 0.1, torch.zeros(len(pictures), 256)
        logs, guesses = [], []
        for _ in range(glimpses):
            seen = Sensor(8)(pictures, place) / 255
            both = torch.cat((F.relu(self.what(seen)), F.relu(self.where(place))), 1)
            h = self.cell(F.relu(self.both(both)), h)
            normal = torch.distributions.Normal(torch.tanh(self.look(h)), 0.1)
            place = normal.sample()
            logs.append(normal.log_prob(place).sum(1))
            guesses.append(self.baseline(h.detach())[:, 0])
        said = self.said(h)
        won = (said.argmax(1) == labels).float().unsqueeze(1)
        log, guess = torch.stack(logs[:-1], 1), torch.stack(guesses[:-1], 1)
        policy = -0.01 * (won - guess.detach()) * log + (won - guess).square()
        return F.cross_entropy(said, labels) + policy.sum(1).mean()


class PlainDraw(nn.Module):
    """DRAW with PyTorch's cells and a Gaussian bank for each picture that is read."""

    def __init__(self, grid: int = 5, hidden: int = 256, latent: int = 10):
        super().__init__()
        self.grid, self.latent, self.hidden = grid, latent, hidden
        self.reader, self.writer = nn.LSTMCell(2 * grid**2 + hidden, hidden), nn.LSTMCell(latent, hidden)
        self.mean, self.log_deviation = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.reads, self.aims, self.writes = nn.Linear(hidden, 5), nn.Linear(hidden, 5), nn.Linear(hidden, grid**2)

    def banks(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gx, gy, log_variance, log_stride, log_gamma = parameters.split(1, 1)
        stride = (SIZE - 1) / (self.grid - 1) * log_stride.exp()
        offsets, at = torch.arange(self.grid) - (self.grid - 1) / 2, torch.arange(SIZE)
        found = []
        for centre in (gy, gx):
            middle = (SIZE + 1) / 2 * (centre + 1) - 1 + offsets * stride
            bank = (-((at - middle.unsqueeze(2)) ** 2) / (2 * log_variance.exp().unsqueeze(2))).exp()
            found.append(bank / bank.sum(2, keepdim=True).clamp_min(1e-8))
        return *found, log_gamma.exp()

    def loss(self, pictures: Tensor, steps: int) -> Tensor:
        x, rows = pictures.float() / 255, len(pictures)
        zeros = torch.zeros(rows, self.hidden)
        (h, c), (said, d) = (zeros, zeros), (zeros, zeros)
        canvas, divergence = torch.zeros(rows, SIZE, SIZE), torch.zeros(rows)
        for _ in range(steps):
            fy, fx, gamma = self.banks(self.reads(said))
            seen = [(fy @ p @ fx.transpose(1, 2)).flatten(1) * gamma for p in (x, x - canvas.sigmoid())]
            h, c = self.reader(torch.cat((*seen, said), 1), (h, c))
            mean, log_deviation = self.mean(h), self.log_deviation(h)
            code = mean + log_deviation.exp() * torch.randn_like(mean)
            divergence = divergence + 0.5 * (mean**2 + (2 * log_deviation).exp() - 2 * log_deviation - 1).sum(1)
            said, d = self.writer(code, (said, d))
            fy, fx, gamma = self.banks(self.aims(said))
            patch = self.writes(said).view(rows, self.grid, self.grid)
            canvas = canvas + fy.transpose(1, 2) @ patch @ fx / gamma.unsqueeze(2)
        pixels = F.binary_cross_entropy_with_logits(canvas, x, reduction="none").sum((1, 2))
        return (pixels + divergence).mean()


def race(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least milliseconds of CPU of each way, one after the other again and again."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats + 1):  # The first warms up.
        for name, way in ways.items():
            began = time.process_time()
            way()
            least[name] = min(least[name], 1000 * (time.process_time() - began))
    return least


def trained(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One update of a model."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)

    def step() -> None:
        optimiser.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def told(title: str, least: Mapping[str, float]) -> None:
    print(title)
    for name, ms in least.items():
        print(f"  {name:<28}{ms:8.2f} ms  {ms / next(iter(least.values())):5.1f}")


def speed(rows: int, repeats: int) -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (rows, SIZE, SIZE), dtype=torch.uint8)
    labels, places = torch.randint(0, 10, (rows,)), torch.rand(rows, 2) * 2 - 1
    sensor = Sensor(8)
    ways = {"one gather": lambda: sensor(pictures, places) / 255, "picture by picture": lambda: cut(pictures, places)}
    torch.testing.assert_close(ways["one gather"](), ways["picture by picture"]())
    told(f"glimpses of 8x8 at {rows} pictures", race(ways, 3 * repeats))
    glance = glimpse_model(Glimpse(), RNN(256, "relu"), Classification(), "many-to-one", False, (SIZE, SIZE), 0.01)
    batch = _batch(pictures, labels.unsqueeze(1).float(), 6)
    ram = PlainRam()
    ways = {
        "steersman": trained(glance, lambda: _mean(glance, batch)),
        "plain PyTorch": trained(ram, lambda: ram.loss(pictures, labels, 6)),
    }
    told(f"update of glance, {rows} pictures, 6 glimpses", race(ways, repeats))
    draws, drawn = draw_model(Sketch(), LSTM(256), Canvas(), (SIZE, SIZE)), PlainDraw()
    half = _batch(pictures[: rows // 2], torch.zeros(rows // 2, 0), 8)
    ways = {
        "steersman": trained(draws, lambda: _mean(draws, half)),
        "plain PyTorch": trained(drawn, lambda: drawn.loss(pictures[: rows // 2], 8)),
    }
    told(f"update of draw, {rows // 2} pictures, 8 steps", race(ways, repeats))


def variance(run: Run, data: str, draws: int = 64, rows: int = 256) -> None:
    """Variance of the gradient that REINFORCE estimates for where to look, with its baseline and without."""
    recipe = run.steps
    model = run.model().train()
    examples = recipe.examples(model, read_records(recipe, (data,))[:rows])
    batch = recipe.make_batches(model, examples).epoch(0)[0]
    for name, baseline in (("with its baseline", True), ("without", False)):
        found = []
        for seed in range(draws):
            torch.manual_seed(seed)
            raw, _ = model(batch, model.initial(len(batch.x)))
            raw = raw if baseline else torch.cat((raw[..., :-2], raw[..., -2:-1] * 0, raw[..., -1:]), -1)
            model.zero_grad()
            total, weight = model.loss(batch, raw)
            (total / weight).backward()
            found.append(model.look.weight.grad.flatten().clone())
        gradients = torch.stack(found)
        mean, spread = gradients.mean(0).norm(), gradients.var(0).sum().sqrt()
        print(f"{name}: deviation {spread:.3g}, {spread / mean:.1f} of the mean gradient's size")


def _batch(pictures: Tensor, y: Tensor, steps: int) -> Batch:
    rows = len(pictures)
    x = pictures.unsqueeze(1).expand(-1, steps, -1, -1)
    return Batch(x, y, torch.ones(rows, steps), torch.ones(rows, dtype=torch.bool))


def _mean(model, batch: Batch) -> Tensor:
    total, weight = model.loss(batch, model(batch, model.initial(len(batch.x)))[0])
    return total / weight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256, help="pictures in a batch of glimpses; half of them are drawn")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--run", help="a run of glance")
    parser.add_argument("--data", default="", help="what it was trained on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.run:
        variance(Run.open(find(options.run)), options.data)
    else:
        speed(options.rows, options.repeats)


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
