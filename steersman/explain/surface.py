"""Why training is hard, by real runs of plain networks: the cliff, the saddle, and units that die."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from ..evaluation.plots import smoothed
from ..sources.digits import Digits
from .pictures import ALARM, FAINT, FOURTH, INK, MODEL, MUTED, PAPER, THIRD, TRUTH, picture

Optimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Walk:
    """What an optimiser did: the weights before each step (step, 2), the loss and the gradient's norm there."""

    name: str
    weights: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray


def walk(
    name: str, loss: Callable[[Tensor, Tensor], Tensor], start: tuple[float, float], steps: int, make: Optimizer,
    clip: float = 0.0,
) -> Walk:  # fmt: skip
    """Real descent on two weights, in double precision; `clip` is the greatest norm of the gradient, 0: any."""
    place = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in start]
    optimizer, rows = make(place), []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        value = loss(*place)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(place, clip or float("inf"))
        rows.append([*(float(p.detach()) for p in place), float(value.detach()), float(norm)])
        optimizer.step()
    found = np.array(rows)
    return Walk(name, found[:, :2], found[:, 2], found[:, 3])


def on_grid(loss: Callable[[Tensor, Tensor], Tensor], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The loss at (b, a)."""
    across, up = np.meshgrid(a, b)
    return loss(torch.from_numpy(across), torch.from_numpy(up)).numpy()


UNROLLED, FIRST, WANTED = 50, 0.5, 0.7
"""Steps of the single unit, the state it starts from, and what it should say at the end (Pascanu et al. 2013)."""
CLIFF_START, CLIFF_RATE, CLIP, CLIFF_STEPS = (4.8, -2.3), 0.05, 0.3, 150


def single_unit(w: Tensor, b: Tensor) -> Tensor:
    """The error of a recurrent network of one unit after so many steps: h = w sigmoid(h) + b."""
    h = torch.full_like(w, FIRST)
    for _ in range(UNROLLED):
        h = w * torch.sigmoid(h) + b
    return (torch.sigmoid(h) - WANTED) ** 2


def cliff_walks() -> list[Walk]:
    start, steps = CLIFF_START, CLIFF_STEPS
    return [
        walk("plain descent", single_unit, start, steps, lambda p: torch.optim.SGD(p, CLIFF_RATE)),
        walk("gradient clipped", single_unit, start, steps, lambda p: torch.optim.SGD(p, CLIFF_RATE), CLIP),
        walk("momentum 0.9", single_unit, start, steps, lambda p: torch.optim.SGD(p, CLIFF_RATE, 0.9)),
    ]


def draw_surface(path: Path) -> Path:
    """The cliff of a single recurrent unit, and three ways over it."""
    walks = cliff_walks()
    w, b = np.linspace(4.0, 6.4, 280), np.linspace(-3.3, -0.3, 280)
    error = on_grid(single_unit, w, b)

    def paint(drawing: Figure) -> None:
        grid = drawing.add_gridspec(2, 2, width_ratios=(1.25, 1), height_ratios=(1, 1))
        hill = drawing.add_subplot(grid[:, 0], projection="3d")
        across, up = np.meshgrid(w, b)
        hill.plot_surface(across, up, error, cmap="cividis", rcount=140, ccount=140, linewidth=0, alpha=0.85)
        above, losses = drawing.add_subplot(grid[0, 1]), drawing.add_subplot(grid[1, 1])
        drawn = above.pcolormesh(w, b, np.maximum(error, 1e-6), norm=LogNorm(1e-5, 0.5), cmap="cividis")
        drawing.colorbar(drawn, ax=above, label="error", pad=0.01)
        for one, colour in zip(walks, (ALARM, MODEL, THIRD), strict=True):
            x, y = one.weights.T
            inside = (x >= w[0]) & (x <= w[-1]) & (y >= b[0]) & (y <= b[-1])
            x, y = np.where(inside[:, None], one.weights, np.nan).T
            hill.plot(x, y, np.where(inside, one.loss, np.nan) + 0.012, color=colour, zorder=9, linewidth=1.6)
            _path(above, one, colour)
            losses.plot(one.loss, color=colour, label=one.name)
        hill.view_init(32, 28)
        hill.set(xlabel="weight w", ylabel="bias b", zlabel="error")
        above.set(xlabel="weight w", ylabel="bias b", xlim=(w[0], w[-1]), ylim=(b[0], b[-1]))
        above.set_title("the same from above, and the paths")
        losses.set(yscale="log", xlabel="step of descent", title="error on the way")
        losses.legend(loc="best")

    return picture(path, paint, _said_of_cliff(walks), 800)


def _said_of_cliff(walks: list[Walk]) -> str:
    plain, clipped, momentum = walks
    leap = float(np.linalg.norm(np.diff(plain.weights, axis=0), axis=1).max())
    return (
        f"The error of a recurrent network of one unit, h = w sigmoid(h) + b, {UNROLLED} steps after h "
        f"= {FIRST}: a plain "
        f"where nothing moves, a valley, and between them a cliff (after Pascanu et al. 2013, figure "
        f"6). All three start "
        f"at w = {CLIFF_START[0]}, b = {CLIFF_START[1]} with rate {CLIFF_RATE}. The steepest gradient "
        f"plain descent meets has "
        f"norm {plain.gradient.max():.0f}, and one step throws it {leap:.1f} far; clipped at {CLIP:g} "
        f"it stays by the cliff. "
        f"Errors at the end: plain {plain.loss[-1]:.2g}, clipped {clipped.loss[-1]:.2g}, momentum "
        f"{momentum.loss[-1]:.2g}."
    )


def _path(axes: Axes, one: Walk, colour: str) -> None:
    axes.plot(*one.weights.T, color=PAPER, linewidth=3.2)
    axes.plot(*one.weights.T, color=colour, linewidth=1.8, marker="o", markersize=2.6, label=one.name)
    axes.plot(*one.weights[0], "o", color=INK, markersize=7, markeredgecolor=PAPER)


SADDLE_START, SADDLE_STEPS = (-0.9, 0.902), 300
SADDLE_X = torch.linspace(-2, 2, 41, dtype=torch.float64)


def two_weights(v: Tensor, u: Tensor) -> Tensor:
    """The error of a network of two linear layers of one unit, y = u v x, that should learn y = x."""
    return 0.5 * ((u * v).unsqueeze(-1) * SADDLE_X - SADDLE_X).square().mean(-1)


def saddle_walks() -> list[Walk]:
    makers: dict[str, Optimizer] = {
        "SGD, rate 0.02": lambda p: torch.optim.SGD(p, 0.02),
        "momentum 0.9": lambda p: torch.optim.SGD(p, 0.02, 0.9),
        "RMSprop, rate 0.02": lambda p: torch.optim.RMSprop(p, 0.02),
        "Adam, rate 0.02": lambda p: torch.optim.Adam(p, 0.02),
    }
    return [walk(name, two_weights, SADDLE_START, SADDLE_STEPS, make) for name, make in makers.items()]


def curvatures(loss: Callable[[Tensor, Tensor], Tensor], at: tuple[float, float]) -> np.ndarray:
    """Eigenvalues of the Hessian, the smallest first."""
    place = torch.tensor(at, dtype=torch.float64)
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(lambda p: loss(p[0], p[1]), place)).numpy()


def draw_saddle(path: Path) -> Path:
    """Two weights of a real network, a saddle at zero, and how four optimisers leave it."""
    walks = saddle_walks()
    ends = np.linspace(-1.6, 1.6, 200)
    error = on_grid(two_weights, ends, ends)

    def paint(drawing: Figure) -> None:
        above, losses = drawing.subplots(1, 2, width_ratios=(1.1, 1))
        above.contourf(ends, ends, error, levels=40, cmap="cividis")
        for one, colour in zip(walks, (ALARM, THIRD, FOURTH, MODEL), strict=True):
            _path(above, one, colour)
            losses.plot(one.loss, color=colour, label=f"{one.name}: {_left(one)}")
        above.plot(0, 0, "x", color=PAPER, markersize=11, markeredgewidth=2.5)
        above.annotate("saddle", (0, 0), (9, 7), textcoords="offset points", color=PAPER)
        above.set(xlabel="weight v of the first layer", ylabel="weight u of the second layer", title="error and paths")
        above.set_xlim(ends[0], ends[-1])
        above.set_ylim(ends[0], ends[-1])
        losses.set(xlabel="step", title="error on the way", ylim=(0, None))
        losses.legend(loc="upper right")

    low, high = curvatures(two_weights, (0.0, 0.0))
    caption = (
        "A network of two layers of one linear unit each, y = u v x, learns y = x. At u = v = 0 the "
        "gradient is zero, yet it is "
        f"no minimum: the curvature there is {low:+.2f} one way and {high:+.2f} the other. From "
        f"{SADDLE_START} all are drawn to "
        "the saddle first; the flat stretch of a curve is the time spent near it, where the loss does "
        "not move and nothing is wrong "
        "but the place. Beside each name: how long it took until the error was a tenth of what it is at the saddle."
    )
    return picture(path, paint, caption, 620)


def _left(one: Walk) -> str:
    """A note on when the error fell below a tenth of its value at the saddle."""
    below = np.flatnonzero(one.loss < 0.1 * float(two_weights(torch.zeros(()).double(), torch.zeros(()).double())))
    return f"away after {below[0]} steps" if len(below) else f"not away after {len(one.loss) - 1}"


RATES, RELU_STEPS, RELU_UNITS = (0.1, 1.0, 3.0), 300, 64
"""Learning rates that are compared, steps of each training, and units of each of the two hidden layers."""


@dataclass(frozen=True)
class Dying:
    """A training with one rate: at each step the share of hidden units that fire for no digit at all, and the loss."""

    rate: float
    dead: np.ndarray
    loss: np.ndarray
    accuracy: float
    """Accuracy on the digits it learned from, at the end."""


def train_relu(rate: float, steps: int = RELU_STEPS, seed: int = 0) -> Dying:
    """Two layers of rectified units learn scikit-learn's digits by plain descent, 64 at a time."""
    records = Digits().read()
    x = torch.from_numpy(np.stack([np.asarray(r["row"].values).reshape(-1) for r in records])) / 16
    y = torch.from_numpy(np.concatenate([np.asarray(r["digit"].values) for r in records])).long()
    make = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(64, RELU_UNITS), nn.Linear(RELU_UNITS, RELU_UNITS), nn.Linear(RELU_UNITS, 10)]
    optimizer = torch.optim.SGD([p for layer in layers for p in layer.parameters()], rate)
    dead, losses = [], []
    for _ in range(steps):
        with torch.no_grad():
            dead.append(1 - float(torch.cat([(h > 0).any(0) for h in _hidden(layers, x)]).double().mean()))
        rows = torch.randint(len(x), (64,), generator=make)
        loss = F.cross_entropy(layers[-1](_hidden(layers, x[rows])[-1]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        right = layers[-1](_hidden(layers, x)[-1]).argmax(1) == y
    return Dying(rate, np.array(dead), np.array(losses), float(right.double().mean()))


def _hidden(layers: list[nn.Linear], x: Tensor) -> list[Tensor]:
    shown = []
    for layer in layers[:-1]:
        x = torch.relu(layer(x))
        shown.append(x)
    return shown


def draw_relu(path: Path) -> Path:
    """Units that die, with three learning rates."""
    runs = [train_relu(rate) for rate in RATES]

    def paint(drawing: Figure) -> None:
        dead, losses = drawing.subplots(1, 2)
        for one, colour in zip(runs, (MODEL, TRUTH, ALARM), strict=True):
            dead.plot(100 * one.dead, color=colour, label=f"rate {one.rate:g}: {one.dead[-1]:.0%} dead at the end")
            losses.plot(one.loss, color=colour, alpha=0.25, linewidth=0.9)
            losses.plot(smoothed(one.loss), color=colour, label=f"rate {one.rate:g}: {one.accuracy:.0%} right")
        losses.axhline(np.log(10), color=FAINT, linewidth=1, linestyle="--")
        losses.annotate("a guess", (0.8 * RELU_STEPS, np.log(10)), (2, 4), textcoords="offset points", color=MUTED)
        dead.set(xlabel="training step", title="hidden units that fire for no digit at all (%)", ylim=(-2, 102))
        losses.set(xlabel="training step", title="loss (nats); faint: each step", ylim=(0, None))
        dead.legend(loc="center right")
        losses.legend(loc="upper right")

    worst = runs[-1]
    caption = (
        f"Three trainings of one network (two layers of {RELU_UNITS} rectified units) on handwritten "
        f"digits, alike but for the rate. "
        "A step that is too long can push a unit's bias so low that no input lifts it over zero; "
        "from then on its gradient "
        f"is zero, too, and it comes back only if the layer below moves. With rate {worst.rate:g} "
        f"{worst.dead[-1]:.0%} of the units end dead. "
        "What to see: the share rises by leaps and hardly ever falls."
    )
    return picture(path, paint, caption, 520)
