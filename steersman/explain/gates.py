"""What a gated core keeps, writes and lets out over time, beside what it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..nn.cores import Core, State
from .pictures import INK, MODEL, MUTED, SHARE, SIGNED, THIRD, TRUTH, picture
from .samples import Sample

FORGET, WRITE, CANDIDATE = "forget", "input", "candidate"
"""A state is forget * state + input * candidate, whatever the gates are called that say so."""
DOES = {FORGET: "what is kept of the state", WRITE: "what is written", "output": "what is let out"}
"""What a gate of that name does."""


@dataclass(frozen=True)
class Belt:
    """A core over time: each gate and the state (time unit), the state it began with, and what gates are called."""

    name: str
    gates: dict[str, np.ndarray]
    state: np.ndarray
    before: np.ndarray
    titles: dict[str, str]


@torch.no_grad()
def belts(core: Core, feature: Tensor, state: State) -> list[Belt]:
    """One for each layer of a causal core, the lowest first."""
    return [_belt(layer.core, given, layer.state) for layer, given in core.fed(feature.unsqueeze(0), state)]


def _belt(core: Core, x: Tensor, state: State) -> Belt:
    before, held = core.memory(state), []
    own = core.gates(x, state)
    gates = _named(core, own)
    for t in range(x.shape[1]):
        _, state = core.step(x[:, t], state)
        held.append(core.memory(state))
    values = {name: gate[0].numpy() for name, gate in gates.items()}
    return Belt(
        type(core).__name__.removesuffix("Core"),
        values,
        torch.cat(held).numpy(),
        before.numpy()[0],
        _titles(own, gates),
    )


def _named(core: Core, gates: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is kept and written first, in place of the gates that say so."""
    shares = core.shares(gates) if gates else None
    if shares is None:
        return gates
    others = {n: gate for n, gate in gates.items() if n not in (FORGET, WRITE, "update")}
    return {FORGET: shares[0], WRITE: shares[1]} | others


def _titles(own: Mapping[str, Tensor], shown: Mapping[str, Tensor]) -> dict[str, str]:
    """What is shown by the name of the core's own gate, and what it does; a share that no gate says, by that alone."""
    does = {name: DOES.get(name, "") for name in shown}
    gates = {name: f"{name} gate: {does[name]}" if does[name] else f"{name} gate" for name in shown if name in own}
    return does | gates | {CANDIDATE: CANDIDATE}


def draw_gates(sample: Sample, at: int, steps: int, path: Path) -> list[Path]:
    """A picture a layer; none where there is no memory, or a core that reads from both ends."""
    if not sample.model.causal:
        return []
    shown = range(max(0, at + 1 - steps), at + 1)
    found = belts(sample.model.core, *sample.features(shown.start, shown.stop))
    files = []
    for number, belt in enumerate(found):
        if belt.state.shape[1]:
            name = path if len(found) == 1 else path.with_stem(f"{path.stem}-{number + 1}")
            files.append(_draw(sample, belt, shown, f", layer {number + 1}" * (len(found) > 1), name))
    return files


def _draw(sample: Sample, belt: Belt, shown: range, layer: str, path: Path) -> Path:
    order, unit = _order(belt)
    panels, carried = [name for name in belt.gates if name != CANDIDATE], FORGET in belt.gates

    def paint(drawing: Figure) -> None:
        heights = [1.25, *[0.85] * len(panels), *[1.2] * carried, 0.62 if sample.example.x.ndim > 2 else 0.32]
        axes = drawing.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        high = float(np.quantile(np.abs(belt.state), 0.99)) or 1.0  # A few units are far larger than the rest.
        _heat(drawing, axes[0], belt.state[:, order], f"state of each unit{layer}", SIGNED, (-high, high))
        for one, name in zip(axes[1:], panels, strict=False):
            _heat(drawing, one, belt.gates[name][:, order], f"{belt.titles[name]} (0 nothing, 1 all)", SHARE, (0, 1))
        if carried:
            _kept(axes[-2], belt, unit)
        _read(axes[-1], sample, shown)

    height = 470 + 150 * (len(panels) + carried)
    return picture(path, paint, _caption(sample, belt, shown, layer, unit), height)


def _order(belt: Belt) -> tuple[np.ndarray, int]:
    """Units by how much they keep, the longest memory on top; and the one whose state moves most."""
    moves = belt.state.std(0)
    if FORGET not in belt.gates:
        return np.argsort(-moves, kind="stable"), int(moves.argmax())
    return np.argsort(-belt.gates[FORGET].mean(0), kind="stable"), int(moves.argmax())


def _heat(drawing: Figure, axes: Axes, values: np.ndarray, title: str, colours, ends: tuple[float, float]) -> None:
    extend = "both" if ends[0] < 0 else "neither"
    drawn = axes.imshow(values.T, aspect="auto", cmap=colours, vmin=ends[0], vmax=ends[1], interpolation="nearest")
    axes.set_title(title)
    axes.set_ylabel("unit")
    axes.set_yticks([0, values.shape[1] - 1], ["1", str(values.shape[1])])
    axes.grid(False)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    drawing.colorbar(drawn, ax=axes, pad=0.01, aspect=8, fraction=0.03, extend=extend).outline.set_visible(False)


def _kept(axes: Axes, belt: Belt, unit: int) -> None:
    """One unit: what a step keeps of the state before it, and what it adds."""
    kept, added = told(belt)
    steps = np.arange(len(belt.state))
    axes.bar(steps, kept[:, unit], 0.8, color=THIRD, alpha=0.55, label="kept of the step before")
    axes.bar(steps, added[:, unit], 0.4, color=TRUTH, label="added by this step")
    axes.step(steps, belt.state[:, unit], where="mid", color=INK, linewidth=1.5, label="state: their sum")
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set_title(f"unit {unit}, whose state moves most")
    axes.set_ylabel("value")
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3)


def told(belt: Belt) -> tuple[np.ndarray, np.ndarray]:
    """What each step keeps of the state and what it adds (time unit): their sum is the state."""
    before = np.concatenate([belt.before[None], belt.state[:-1]])
    return belt.gates[FORGET] * before, belt.gates[WRITE] * belt.gates[CANDIDATE]


def _read(axes: Axes, sample: Sample, shown: range) -> None:
    """The input under its steps: text, pictures, or numbers."""
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    every = max(1, len(shown) // 12)
    ticks = range(every // 2, len(shown), every)
    axes.set_xticks(ticks, [str(shown[t]) for t in ticks])
    axes.set_xlabel("step of the record")
    axes.set_yticks([])
    seen = sample.pictures([shown[t] for t in ticks])
    if seen is not None:
        for t, one in zip(ticks, seen, strict=True):
            axes.imshow(one, extent=(t - 0.46 * every, t + 0.46 * every, 0, 1), aspect="auto", interpolation="bilinear")
        axes.set_xlim(-0.5, len(shown) - 0.5)
        axes.set_ylim(0, 1)
    elif sample.example.x.dtype.kind in "iu":
        for t, word in enumerate(sample.words(shown)):
            axes.text(t, 0.5, word, ha="center", va="center", fontsize=11, family="DejaVu Sans Mono")
        axes.set_ylim(0, 1)
    else:
        axes.plot(np.arange(len(shown)), sample.example.x[shown.start : shown.stop], color=MODEL, linewidth=1.2)
        axes.set_ylabel("input")


def _caption(sample: Sample, belt: Belt, shown: range, layer: str, unit: int) -> str:
    where = f"{sample.name}{layer}, an {belt.name}" if belt.name[0] in "LR" else f"{sample.name}{layer}, a {belt.name}"
    begin = f"{where}, while it reads steps {shown.start} to {shown.stop - 1} of record {sample.record.name}."
    if FORGET not in belt.gates:
        what = "no gate of it says what is kept" if belt.gates else "it has no gates"
        return f"{begin} Its state over time, the unit that moves most on top; {what}."
    kept = belt.gates[FORGET]
    share = float((kept > 0.9).mean())
    how = "Each column is a step, each row a unit, those that keep most on top; a dark row of what is kept "
    what = "is a long memory, a light spot in it is where the past is dropped. "
    often = f"{share:.0%} of the time a unit keeps over nine tenths. "
    below = f"Below: in unit {unit} the state of a step is what is kept of the last plus what is added."
    return f"{begin} {how}{what}{often}{below}"
