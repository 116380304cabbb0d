"""A formula as a circuit of gates: values forwards, gradients backwards, and what each gate does to them.

The numbers are torch's own autograd in double precision. A formula is parsed here and never run as Python. After the
circuits of Karpathy's CS231n, lecture 4, and of MIT's lecture "Recurrent Neural Networks for Steering Through Time".
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from rich.table import Table
from torch import Tensor

from ..errors import UserError
from ..files import written_whole
from ..json_types import JsonObject

GREEN, RED = "#1b7f3b", "#b3261e"
LONGEST, MOST_GATES, DEEPEST = 2000, 200, 50
"""Characters of a formula, its gates and numbers, and how deep its brackets go."""
TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|([A-Za-z_]\w*)|(\*\*|[-+*/^(),;=]))")


def _power(x: Tensor, n: Tensor) -> Tensor:
    return x**n


def _many(two: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def all_of(*inputs: Tensor) -> Tensor:
        result = inputs[0]
        for other in inputs[1:]:
            result = two(result, other)
        return result

    return all_of


@dataclass(frozen=True)
class Gate:
    """What it computes, of how many inputs (at least, at most), and what it does to a gradient."""

    compute: Callable[..., Tensor]
    least: int
    most: int
    does: str


GATES = {
    "+": Gate(torch.add, 2, 2, "add distributes: its gradient {g} goes on to both inputs as it is"),
    "-": Gate(torch.sub, 2, 2, "subtract distributes: its gradient {g} goes to the first, its opposite to the second"),
    "*": Gate(torch.mul, 2, 2, "multiply swaps: its gradient {g} goes to each input times the value of the other"),
    "/": Gate(torch.div, 2, 2, "divide: its gradient {g} goes on over the lower; to the lower times -upper / lower^2"),
    "negate": Gate(torch.neg, 1, 1, "minus turns the sign of its gradient {g}"),
    "max": Gate(_many(torch.maximum), 2, 20, "max routes: its gradient {g} goes to the largest input alone"),
    "min": Gate(_many(torch.minimum), 2, 20, "min routes: its gradient {g} goes to the smallest input alone"),
    "exp": Gate(torch.exp, 1, 1, "exp scales: its gradient {g} times its own value {v}"),
    "log": Gate(torch.log, 1, 1, "log scales: its gradient {g} over its input"),
    "sigmoid": Gate(torch.sigmoid, 1, 1, "sigmoid scales: its gradient {g} times s (1 - s), which is never over 1/4"),
    "tanh": Gate(torch.tanh, 1, 1, "tanh scales: its gradient {g} times 1 - t^2, which is near 0 where it saturates"),
    "relu": Gate(torch.relu, 1, 1, "relu gates: its gradient {g} passes where the input is above 0, else nothing does"),
    "power": Gate(_power, 2, 2, "power scales: its gradient {g} times n x^(n - 1)"),
}  # fmt: skip
SIGNS = {"negate": "-", "power": "^"}


@dataclass(eq=False)
class Wire:
    """What a gate, a variable or a number gives, and the gradient of the outputs' sum with respect to it."""

    gate: str
    """`variable`, `number`, or one of GATES."""
    name: str
    inputs: list["Wire"] = field(default_factory=list)
    at: int = 0
    """Place in the formula."""
    tensor: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    value: float = 0.0
    gradient: float = 0.0
    back: list[float] = field(default_factory=list)
    """Gradient that it gives back to each of its inputs."""


@dataclass
class Circuit:
    """All wires, inputs before the gates that take them; the last statement's wires are outputs."""

    formula: str
    wires: list[Wire]
    outputs: list[Wire]
    error: float = 0.0
    """The largest difference between a gradient and its finite difference, in shares of 1 + its size."""

    def json(self) -> JsonObject:
        number = {id(wire): i for i, wire in enumerate(self.wires)}
        return {
            "formula": self.formula,
            "outputs": [number[id(wire)] for wire in self.outputs],
            "finite_difference_error": self.error,
            "wires": [
                {"gate": w.gate, "name": w.name, "inputs": [number[id(i)] for i in w.inputs], "value": w.value,
                 "gradient": w.gradient, "gives_back": w.back}
                for w in self.wires
            ],
        }  # fmt: skip


class _Parser:
    """One formula to wires, by precedence: + and -, * and /, the sign, powers."""

    def __init__(self, formula: str, given: Mapping[str, float]):
        self.formula, self.given = formula, given
        self.names: dict[str, Wire] = {}
        self.used: set[str] = set()
        self.wires: list[Wire] = []
        self.tokens = self._tokens()
        self.next, self.depth = 0, 0

    def _tokens(self) -> list[tuple[str, str, int]]:
        found, at, end = [], 0, len(self.formula.rstrip())
        while at < end:
            match = TOKEN.match(self.formula, at)
            if not match:
                at += len(self.formula[at:]) - len(self.formula[at:].lstrip())
                raise self.refuse(at, f"{self.formula[at]!r} has no meaning here")
            kind = ("number", "name", "sign")[(match.lastindex or 1) - 1]
            found.append((kind, match[match.lastindex or 1], match.start(match.lastindex or 1)))
            at = match.end()
        return [*found, ("end", "", end)]

    def refuse(self, at: int, why: str) -> UserError:
        # One line, with a window of the formula around the place.
        start = max(0, at - 30)
        around = self.formula[start : at + 30].replace("\n", " ")
        return UserError(f"{why}, at character {at + 1}:\n  {around}\n  {' ' * (at - start)}^")

    def take(self, *signs: str) -> tuple[str, int] | None:
        kind, text, at = self.tokens[self.next]
        if kind != "sign" or text not in signs:
            return None
        self.next += 1
        return text, at

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            _, text, at = self.tokens[self.next]
            raise self.refuse(at, f"expected {sign!r}, found {text!r}" if text else f"expected {sign!r}, found the end")

    def gate(self, gate: str, inputs: list[Wire], at: int) -> Wire:
        if len(self.wires) >= MOST_GATES:
            raise self.refuse(at, f"more than {MOST_GATES} gates and numbers; show a part of the formula")
        wire = Wire(gate, SIGNS.get(gate, gate), inputs, at)
        self.wires.append(wire)
        return wire

    def statements(self) -> list[Wire]:
        """The outputs: what has no name, or the last if all have one."""
        outputs: list[Wire] = []
        last = None
        while True:
            name = self.named()
            last = self.sum()
            if name is None:
                outputs.append(last)
            else:
                self.names[name] = last
            if not self.take(";"):
                break
            if self.tokens[self.next][0] == "end":
                break
        _, text, at = self.tokens[self.next]
        if text:
            raise self.refuse(at, f"expected an operator or the end, found {text!r}")
        return outputs or [last]

    def named(self) -> str | None:
        kind, name, at = self.tokens[self.next]
        if kind != "name" or self.tokens[self.next + 1][1] != "=":
            return None
        if name in self.names or name in self.given or name in GATES:
            raise self.refuse(at, f"{name} already means something")
        self.next += 2
        return name

    def sum(self) -> Wire:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.refuse(self.tokens[self.next][2], f"brackets go deeper than {DEEPEST}")
        left = self.product()
        while found := self.take("+", "-"):
            left = self.gate(found[0], [left, self.product()], found[1])
        self.depth -= 1
        return left

    def product(self) -> Wire:
        left = self.sign()
        while found := self.take("*", "/"):
            left = self.gate(found[0], [left, self.sign()], found[1])
        return left

    def sign(self) -> Wire:
        minus: list[int] = []
        while found := self.take("-", "+"):
            minus += [found[1]] if found[0] == "-" else []
        wire = self.power()
        for at in reversed(minus):
            wire = self.gate("negate", [wire], at)
        return wire

    def power(self) -> Wire:
        base = self.atom()
        if found := self.take("^", "**"):
            self.depth += 1
            if self.depth > DEEPEST:
                raise self.refuse(found[1], f"powers go deeper than {DEEPEST}")
            base = self.gate("power", [base, self.sign()], found[1])
            self.depth -= 1
        return base

    def atom(self) -> Wire:
        kind, text, at = self.tokens[self.next]
        if self.take("("):
            inside = self.sum()
            self.expect(")")
            return inside
        if kind == "number":
            self.next += 1
            wire = self.gate("number", [], at)
            wire.name, wire.value = text, float(text)
            return wire
        if kind != "name":
            raise self.refuse(at, f"expected a number, a name or a bracket, found {text!r}" if text else "it ends here")
        self.next += 1
        if self.take("("):
            return self.call(text, at)
        return self.variable(text, at)

    def call(self, text: str, at: int) -> Wire:
        name = "power" if text == "pow" else text
        if name not in GATES or not name.isalpha() or name == "negate":
            known = ", ".join(n for n in GATES if n.isalpha() and n != "negate")
            raise self.refuse(at, f"there is no gate {text}; there are + - * / ^, {known}")
        inputs = [self.sum()]
        while self.take(","):
            inputs.append(self.sum())
        self.expect(")")
        gate = GATES[name]
        if not gate.least <= len(inputs) <= gate.most:
            raise self.refuse(at, f"{text} takes {gate.least} {'' if gate.most == gate.least else 'or more '}inputs")
        return self.gate(name, inputs, at)

    def variable(self, name: str, at: int) -> Wire:
        if name not in self.names:
            if name not in self.given:
                raise self.refuse(at, f"{name} has no value; give it behind the formula, as {name}=1.5")
            wire = self.names[name] = self.gate("variable", [], at)
            wire.name, wire.value = name, self.given[name]
            self.used.add(name)
        return self.names[name]


def values(given: Sequence[str]) -> dict[str, float]:
    """Numbers by name from arguments such as `x=-2`. UserError where one is not of that form."""
    found: dict[str, float] = {}
    for one in given:
        name, _, number = one.partition("=")
        try:
            found[name] = float(number)
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or not math.isfinite(found[name]):
                raise ValueError
        except ValueError:
            raise UserError(f"{one!r} gives no variable a number; write it as x=-2") from None
    return found


def circuit(formula: str, given: Mapping[str, float]) -> Circuit:
    """A formula with the value and the gradient of every wire.

    Statements are divided by `;`; `name = ...` names a wire, and those without a name are the outputs, whose sum is
    differentiated. UserError says where a formula can't be understood or computed.
    """
    if len(formula) > LONGEST:
        raise UserError(f"the formula has {len(formula)} characters; at most {LONGEST} are shown")
    parser = _Parser(formula, given)
    outputs = parser.statements()
    if unused := sorted(set(given) - parser.used):
        raise UserError(f"{', '.join(unused)} does not occur in the formula {formula!r}")
    wires = parser.wires
    _forwards(wires, {}, parser.refuse)
    found = Circuit(formula, wires, outputs)
    total = torch.stack([wire.tensor for wire in outputs]).sum()
    gradients = torch.autograd.grad(total, [w.tensor for w in wires], allow_unused=True) if total.requires_grad else []
    for wire, gradient in zip(wires, gradients, strict=False):
        wire.gradient = 0.0 if gradient is None else float(gradient)
        if not math.isfinite(wire.gradient):
            raise parser.refuse(wire.at, f"the gradient of {wire.name} is {wire.gradient:g} there")
    for wire in wires:
        if wire.inputs:
            wire.back = _given_back(wire)
    found.error = _finite_differences(found, parser.refuse)
    return found


def _forwards(wires: list[Wire], moved: Mapping[int, float], refuse: Callable[[int, str], UserError]) -> None:
    """Computes every wire, with some leaves moved."""
    for wire in wires:
        if wire.inputs:
            wire.tensor = GATES[wire.gate].compute(*(i.tensor for i in wire.inputs))
        else:
            number = wire.value + moved.get(id(wire), 0.0)
            wire.tensor = torch.tensor(number, dtype=torch.float64, requires_grad=True)
        value = float(wire.tensor.detach())
        if not math.isfinite(value):
            given = ", ".join(f"{float(i.tensor.detach()):g}" for i in wire.inputs)
            raise refuse(wire.at, f"{wire.name} of {given} is {value:g}, no number")
        if not moved:
            wire.value = value


def _given_back(wire: Wire) -> list[float]:
    """The gradient that a gate hands to each input: its own times the local slope."""
    inputs = [torch.tensor(i.value, dtype=torch.float64, requires_grad=True) for i in wire.inputs]
    slopes = torch.autograd.grad(GATES[wire.gate].compute(*inputs), inputs)
    return [wire.gradient * float(slope) if wire.gradient else 0.0 for slope in slopes]


def _finite_differences(found: Circuit, refuse: Callable[[int, str], UserError]) -> float:
    """The largest difference from the slope between a point just above and one just below, leaf by leaf."""
    worst = 0.0
    for leaf in found.wires:
        if leaf.gate != "variable":
            continue
        step, sums = 1e-6 * max(1.0, abs(leaf.value)), []
        for sign in (1, -1):
            try:
                _forwards(found.wires, {id(leaf): sign * step}, refuse)
            except UserError:
                break  # Just beside the point there is no value.
            sums.append(sum(float(wire.tensor.detach()) for wire in found.outputs))
        if len(sums) == 2:
            slope = (sums[0] - sums[1]) / (2 * step)
            worst = max(worst, abs(slope - leaf.gradient) / (1 + abs(leaf.gradient)))
    return worst


def said(found: Circuit) -> tuple[Table, Table]:
    """Forwards and backwards, a row a gate, in words."""
    forwards, backwards = Table("gate", "of", "value", box=None), Table("gate", "gradient", "what it does", box=None)
    shown = {id(w): w.name for w in found.wires if not w.inputs}
    for i, wire in enumerate(w for w in found.wires if w.inputs):
        shown[id(wire)] = f"{wire.name}{_small(i + 1)}"
        forwards.add_row(shown[id(wire)], ", ".join(shown[id(x)] for x in wire.inputs), f"{wire.value:.6g}")
    for wire in reversed(found.wires):
        if wire.inputs:
            words = GATES[wire.gate].does.format(g=f"{wire.gradient:.4g}", v=f"{wire.value:.4g}")
            to = ", ".join(f"{shown[id(x)]} gets {b:.4g}" for x, b in zip(wire.inputs, wire.back, strict=True))
            backwards.add_row(shown[id(wire)], f"{wire.gradient:.6g}", f"{words}: {to}")
    for wire in found.wires:
        if wire.gate == "variable":
            backwards.add_row(wire.name, f"{wire.gradient:.6g}", f"the output's slope as {wire.name} grows")
    return forwards, backwards


def _small(number: int) -> str:
    return "".join(chr(0x2080 + int(digit)) for digit in str(number))


@dataclass(frozen=True)
class Label:
    """A number beside an arrow, its middle in pixels, turned as the arrow is."""

    text: str
    colour: str
    middle: tuple[float, float]
    degrees: float
    size: tuple[float, float]

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Which of some points (n 2) lie within it."""
        turn = np.deg2rad(self.degrees)
        along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        away = points - np.array(self.middle)
        return (np.abs(away @ along) < self.size[0] / 2 + 1) & (np.abs(away @ across) < self.size[1] / 2 + 1)

    def points(self) -> np.ndarray:
        """Points all over it."""
        turn = np.deg2rad(self.degrees)
        along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        u, v = np.meshgrid(np.linspace(-0.5, 0.5, 9) * self.size[0], np.linspace(-0.5, 0.5, 4) * self.size[1])
        return np.array(self.middle) + u.reshape(-1, 1) * along + v.reshape(-1, 1) * across


@dataclass
class Layout:
    """Where all of a picture of a circuit lies, in pixels."""

    width: float
    height: float
    boxes: dict[int, tuple[float, float, float, float]]
    """Middle and half the size of each wire's box."""
    arrows: list[tuple[np.ndarray, np.ndarray, str]] = field(default_factory=list)
    """From, to, colour."""
    labels: list[Label] = field(default_factory=list)

    def crossed(self, label: Label) -> int:
        """How much of arrows, boxes and other labels lies where this one would."""
        lines = [np.linspace(start, end, 60) for start, end, _ in self.arrows]
        edges = [_outline(*box) for box in self.boxes.values()]
        others = [other.points() for other in self.labels]
        return int(label.holds(np.concatenate([*lines, *edges, *others])).sum())


def _outline(x: float, y: float, wide: float, tall: float) -> np.ndarray:
    u, v = np.meshgrid(np.linspace(x - wide, x + wide, 7), np.linspace(y - tall, y + tall, 5))
    return np.stack([u.reshape(-1), v.reshape(-1)], 1)


def layout(found: Circuit) -> Layout:
    """Arrows forwards and, below each, backwards; every number beside its own arrow and off all others."""
    place = _placed(found)
    columns, heights = 1 + max(x for x, _ in place.values()), [y for _, y in place.values()]
    rows = max(heights) - min(heights) + 1
    width = max(1200.0, min(4000.0, 190 * columns))
    height = max(280.0, 130 * rows + 130)
    step = (width - 210) / max(columns - 0.1, 1)
    boxes = {
        id(w): (60 + step * place[id(w)][0], 90 + 130 * (place[id(w)][1] - min(heights)), 13 + 4.5 * len(w.name), 15.0)
        for w in found.wires
    }
    made = Layout(width, height, boxes)
    wanted = []
    for wire in found.wires:
        for number, (source, back) in enumerate(zip(wire.inputs, wire.back, strict=True)):
            same = [i for i, other in enumerate(wire.inputs) if other is source]
            bow = 34.0 * (same.index(number) - (len(same) - 1) / 2)  # A wire that is taken twice.
            wanted.append((boxes[id(source)], boxes[id(wire)], bow, source.value, back))
    for wire in found.outputs:
        x, y, wide, tall = boxes[id(wire)]
        wanted.append((boxes[id(wire)], (x + wide + 110, y, 1.0, tall), 0.0, wire.value, wire.gradient))
    sides = [_both_ways(made, one, other, bow) for one, other, bow, _, _ in wanted]
    places = [
        (start, end, side, f"{shown + 0.0:.4g}", colour)
        for (start, end, up), (*_, value, back) in zip(sides, wanted, strict=True)
        for shown, colour, side in ((value, GREEN, up), (back, RED, -up))
    ]
    for at in places:
        made.labels.append(_beside(made, *at))
    for number, at in (*enumerate(places), *enumerate(places)):  # Now each knows of all the others.
        label = made.labels.pop(number)  # It is not in its own way.
        made.labels.insert(number, _beside(made, *at) if made.crossed(label) else label)
    forks = [w for w in found.wires if sum(i is w for g in found.wires for i in g.inputs) > 1]
    for wire in forks:
        x, y, _, _ = boxes[id(wire)]
        text = f"sum {wire.gradient:.4g}"
        tried = [_label(text, RED, np.array([x, y + away]), 0.0) for away in (-28, 28, -63, 63)]
        made.labels.append(min(tried, key=made.crossed))
    return made


def _both_ways(made: Layout, one: tuple, other: tuple, bow: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adds the arrow forwards and the one backwards below it; the line between them, and the way up from it."""
    start, end = np.array(one[:2]), np.array(other[:2])
    along = (end - start) / np.linalg.norm(end - start)
    up = np.array([-along[1], along[0]])
    apart = [
        _shortened(start + (bow + side) * up, end + (bow + side) * up, one, other, 3 + abs(bow)) for side in (4.0, -4.0)
    ]
    made.arrows.append((*apart[0], "0.5"))
    made.arrows.append((apart[1][1], apart[1][0], RED))
    middle = np.mean(apart, axis=0)
    return middle[0], middle[1], up


def _shortened(
    start: np.ndarray, end: np.ndarray, one: tuple, other: tuple, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """What of a line lies outside of the boxes at its ends, which reach that much further up and down."""
    points = np.linspace(start, end, 400)
    inside = [
        (np.abs(points[:, 0] - x) < wide + 3) & (np.abs(points[:, 1] - y) < tall + reach)
        for x, y, wide, tall in (one, other)
    ]
    outside = np.flatnonzero(~(inside[0] | inside[1]))
    return (points[outside[0]], points[outside[-1]]) if len(outside) else (start, end)


SHARES = sorted((i / 40 for i in range(5, 36)), key=lambda share: abs(share - 0.5))
"""How far along an arrow a number may stand, best first."""


def _beside(made: Layout, start: np.ndarray, end: np.ndarray, side: np.ndarray, text: str, colour: str) -> Label:
    """The label on that side of an arrow, as far along it as it takes to be off everything else."""
    degrees = float(np.rad2deg(np.arctan2(end[1] - start[1], end[0] - start[0])))
    best = None
    for share in SHARES:
        label = _label(text, colour, start + share * (end - start) + 16 * side, degrees)
        found = made.crossed(label)
        if best is None or found < best[0]:
            best = found, label
        if not found:
            break
    assert best
    return best[1]


def _label(text: str, colour: str, middle: np.ndarray, degrees: float) -> Label:
    return Label(text, colour, (float(middle[0]), float(middle[1])), degrees, (9.2 * len(text), 15.0))


def draw(found: Circuit, path: Path) -> list[Path]:
    """The circuit as `path`.svg and `path`.png: values on arrows forwards, gradients on arrows backwards."""
    made = layout(found)
    figure = Figure(figsize=(made.width / 100, made.height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, made.width), ylim=(0, made.height))
    axes.set_axis_off()
    for start, end, colour in made.arrows:
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tuple(end), tuple(start), arrowprops=arrow)
    for wire in found.wires:
        x, y, wide, tall = made.boxes[id(wire)]
        style = "round,pad=0,rounding_size=6" if wire.inputs else "square,pad=0"
        fill = "#dbe7f5" if wire.inputs else "#f3efe4"
        axes.add_patch(FancyBboxPatch((x - wide, y - tall), 2 * wide, 2 * tall, style, facecolor=fill, edgecolor="0.4"))
        axes.text(x, y, wire.name, ha="center", va="center", fontsize=12, parse_math=False)
    for label in made.labels:
        turned = {"rotation": label.degrees, "rotation_mode": "anchor", "ha": "center", "va": "center"}
        axes.text(*label.middle, label.text, color=label.colour, fontsize=11, **turned)
    shown = found.formula if len(found.formula) < 110 else found.formula[:107] + "..."
    axes.text(12, made.height - 14, shown, fontsize=13, va="top", family="monospace", parse_math=False)
    said = "Forwards, in green on a grey arrow: the value that goes along it. Backwards, in red on a red arrow: the "
    said += "gradient of the output to it; where a wire forks, its sum."
    axes.text(12, 14, said, fontsize=10, va="bottom")
    written = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    for one in written:
        with written_whole(one) as file:
            figure.savefig(file, dpi=100, format=one.suffix[1:])
    return written


CLEARANCE = 0.4
"""Rows between a box and a wire that goes by."""


def _placed(found: Circuit) -> dict[int, tuple[float, float]]:
    """Column and row of each wire: a gate right of its inputs, an input next to what takes it, rows without a clash."""
    column: dict[int, int] = {}
    for wire in found.wires:
        column[id(wire)] = 1 + max((column[id(i)] for i in wire.inputs), default=-1)
    for leaf in found.wires:
        if not leaf.inputs:
            takers = [column[id(g)] for g in found.wires if leaf in g.inputs]
            column[id(leaf)] = min(takers, default=1) - 1
    row: dict[int, float] = {}
    leaves = [w for w in found.wires if not w.inputs]
    for i, leaf in enumerate(leaves):
        row[id(leaf)] = -float(i)
    for wire in found.wires:
        if wire.inputs:
            row[id(wire)] = sum(row[id(i)] for i in wire.inputs) / len(wire.inputs)
    _spread(found, column, row)
    for _ in range(8):  # Where one moves, wires move, and others may have to.
        if not any([_moved(found, box, column, row) for box in found.wires]):
            break
    return {key: (float(at), row[key]) for key, at in column.items()}


def _spread(found: Circuit, column: Mapping[int, int], row: dict[int, float]) -> None:
    """Parts the rows of each column."""
    for at in set(column.values()):
        here = sorted((w for w in found.wires if column[id(w)] == at), key=lambda w: -row[id(w)])
        for above, below in pairwise(here):
            row[id(below)] = min(row[id(below)], row[id(above)] - 0.9)


def _moved(found: Circuit, box: Wire, column: Mapping[int, int], row: dict[int, float]) -> bool:
    """Whether a box stood on others' wires; it goes to the nearest place where it stands on none, and on no box."""
    at, lines = column[id(box)], []
    for gate in found.wires:
        for source in gate.inputs:
            first, last = column[id(source)], column[id(gate)]
            if first < at < last:
                share = (at - first) / (last - first)
                lines.append(row[id(source)] + share * (row[id(gate)] - row[id(source)]))
    others = [row[id(w)] for w in found.wires if w is not box and column[id(w)] == at]

    def free(place: float) -> bool:
        return all(abs(place - y) >= CLEARANCE for y in lines) and all(abs(place - y) >= 0.9 for y in others)

    here = row[id(box)]
    if all(abs(here - y) >= CLEARANCE for y in lines):
        return False
    row[id(box)] = next((p for k in range(1, 80) for p in (here - k / 10, here + k / 10) if free(p)), here)
    return row[id(box)] != here
