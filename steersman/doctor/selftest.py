"""Does the doctor find what is wrong, and only that? Small models with one planted fault each, and healthy ones.

Each is trained by the package's own loop for a second or so, then examined like any run. A fault is drawn with a
severity and a recipe (text, steering, sensor) by the seed. What was used to choose the thresholds, TUNED_SEEDS and the
first severities of each fault, is not used to judge them.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.table import Table
from torch import nn

from ..data.batches import Lanes, Piece, Windows
from ..data.examples import Example
from ..data.records import Record, Stream, Values
from ..errors import UserError
from ..json_types import JsonObject
from ..nn.cores import GRU, LSTM, RNN, CoreSpec, LSTMCore
from ..nn.encoders import Embedding, Identity
from ..nn.heads import NextSymbol, Regression
from ..nn.pictures import Conv, Picture
from ..progress import Watch, silent
from ..sources.synthetic import Echo, Road
from ..sources.text import text_record
from ..training.checkpoints import Checkpoints, load_weights
from ..training.prepare import prepare
from ..training.recipe import StepRecipe
from ..training.trainer import Trainer, Training, read_log
from .findings import Patient
from .surface import checkpoint_updates
from .visit import examine

TUNED_SEEDS = (900_000, 900_001, 900_002)
"""Seeds that thresholds were chosen on, with severities `tuned`."""
REPEATS = 3
"""Seeds a self-test; `--seed N` takes the N-th three from 0 on, all below TUNED_SEEDS."""
SYMBOLS = "abcdefghijkl"


@dataclass
class Case:
    """A small recipe with its data, before it is trained; faults are planted by changing it."""

    name: str
    recipe: StepRecipe
    records: dict[str, list[Record]]
    rng: np.random.Generator
    on_shown: list[Callable[[dict[str, list[Example]]], None]] = field(default_factory=list)
    """Changes to the examples before the normalisers are taken."""
    on_model: list[Callable[[Any], None]] = field(default_factory=list)
    """Changes to the model before training."""
    on_trained: list[Callable[[Any], None]] = field(default_factory=list)
    """Changes to the model after it."""

    def change(self, **changes: Any) -> None:
        self.recipe = replace(self.recipe, **changes)

    def train(self, **changes: Any) -> None:
        self.change(training=replace(self.recipe.training, **changes))


def sensor(rng: np.random.Generator, **options: Any) -> Case:
    """Four noisy inputs, one of which is repeated some steps later."""
    seed = int(rng.integers(1_000_000_000))
    source = Echo(**({"records": 28, "steps": 90, "delay": int(rng.integers(2, 4)), "seed": seed} | options))
    core = [GRU(24), LSTM(24), RNN(24)][rng.integers(3)]
    recipe = StepRecipe(
        source=source, inputs="x", encoder=Identity(), core=core, head=Regression(("y",)),
        batches=Lanes(batch_size=8, window=32),
        training=Training(steps=160, learning_rate=1e-2, warmup=10, precision="float32", validate_every=40, seed=seed),
    )  # fmt: skip
    return Case("sensor", recipe, _split(source.read(), 6), rng)


def steering(rng: np.random.Generator, **options: Any) -> Case:
    """A small camera on a winding road that shows the bend to come."""
    seed = int(rng.integers(1_000_000_000))
    source = Road(**({"records": 22, "steps": 100, "height": 12, "width": 16, "noise": 10.0, "seed": seed} | options))
    core = [GRU(24), LSTM(24)][rng.integers(2)]
    encoder = Conv((6, 8), (3, 3), (2, 2), 24, pixels=Picture(12, 16))
    recipe = StepRecipe(
        source=source, encoder=encoder, core=core, head=Regression(("steer",)), batches=Lanes(batch_size=5, window=16),
        training=Training(steps=120, learning_rate=4e-3, warmup=10, precision="float32", validate_every=40, seed=seed),
    )  # fmt: skip
    return Case("steering", recipe, _split(source.read(), 5), rng)


def text(rng: np.random.Generator, order: int = 2, sharp: float = 0.25, lengths: Sequence[int] = (900,) * 14) -> Case:
    """Letters of which each is drawn by the `order` before it."""
    seed = int(rng.integers(1_000_000_000))
    odds = rng.dirichlet(np.full(len(SYMBOLS), sharp), (len(SYMBOLS),) * order)
    records = [text_record(f"text_{i}", _drawn(odds, n, rng).encode(), f"text_{i}") for i, n in enumerate(lengths)]
    recipe = StepRecipe(
        source=Echo(), inputs="character", encoder=Embedding(SYMBOLS, 16, 0.0),
        core=[GRU(32), LSTM(32)][rng.integers(2)], head=NextSymbol(("next_character",), SYMBOLS, 0.0),
        batches=Lanes(batch_size=8, window=32),
        training=Training(steps=200, learning_rate=1e-2, warmup=10, precision="float32", validate_every=40, seed=seed),
    )  # fmt: skip
    return Case("text", recipe, _split(records, 3), rng)


def _drawn(odds: np.ndarray, length: int, rng: np.random.Generator) -> str:
    last, out = tuple(rng.integers(0, len(SYMBOLS), odds.ndim - 1)), []
    cumulative = odds.cumsum(-1)
    for u in rng.random(length):
        new = min(int((cumulative[last] < u).sum()), len(SYMBOLS) - 1)
        out.append(SYMBOLS[new])
        last = (*last[1:], new)
    return "".join(out)


def _split(records: list[Record], held: int) -> dict[str, list[Record]]:
    return {"train": records[held:], "validation": records[:held]}


CASES: dict[str, Callable[..., Case]] = {"sensor": sensor, "steering": steering, "text": text}


def trained(case: Case) -> Patient:
    """The case after its training, as the doctor sees a run; one that exploded, as it was left."""
    recipe = case.recipe
    torch.manual_seed(recipe.training.seed)

    def change(examples: dict[str, list[Example]]) -> None:
        for one in case.on_shown:
            one(examples)

    made = prepare(recipe, case.records, on_examples=change)
    model: Any = made.model
    with torch.no_grad():
        for one in case.on_model:
            one(model)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            Trainer(model, made.batches, recipe.training, folder, made.validate, say=lambda line: None).run()
        except UserError as error:
            if "exploded" not in str(error):
                raise
        checkpoints = Checkpoints(folder / "checkpoints")
        tensors, _ = checkpoints.read(checkpoints.steps()[-1])
        model.load_state_dict(tensors["model"])
        if (folder / "model.safetensors").exists():
            load_weights(model, folder / "model.safetensors")
        with torch.no_grad():
            for one in case.on_trained:
                one(model)
        updates = checkpoint_updates(model, tensors, recipe.training)
        return Patient(model.eval(), made.examples, made.batches, read_log(folder), updates)


@dataclass(frozen=True)
class Fault:
    """One kind of fault: how it is planted into a case, in which recipes, and how badly."""

    plant: Callable[[Case, float], None]
    recipes: tuple[str, ...]
    tuned: tuple[float, ...]
    """Severities that thresholds were chosen on."""
    tested: tuple[float, ...]
    """Severities of the self-test."""


def _core(case: Case, spec: CoreSpec, rate: float) -> None:
    case.change(core=spec)
    case.train(learning_rate=rate)


def _vanishing(case: Case, scale: float) -> None:
    _core(case, RNN(24), 3e-4)
    case.on_model.append(lambda model: model.core.weight_hh.mul_(scale))


def _growing(case: Case, gain: float) -> None:
    _core(case, RNN(24, "relu"), 1e-4)
    case.change(batches=Windows(batch_size=8, window=8))
    # Of a ReLU about half the units pass; a scaled identity loses none.
    case.on_model.append(lambda model: model.core.weight_hh.copy_(gain * torch.eye(24)))


def _dead(case: Case, share: float) -> None:
    case.train(learning_rate=1e-3)

    def kill(model: Any) -> None:
        layer = model.encoder.dense if case.name == "steering" else model.core
        bias = layer.bias if isinstance(layer, nn.Linear) else layer.bias_ih
        bias[: round(share * len(bias))] = -100.0

    if case.name == "sensor":
        case.change(core=RNN(24, "relu"))
    case.on_model.append(kill)


def _saturate(spec: CoreSpec) -> Callable[[Case, float], None]:
    def plant(case: Case, scale: float) -> None:
        _core(case, spec, 1e-3)
        case.on_model.append(lambda model: model.core.weight_ih.mul_(scale))

    return plant


def _stuck(gate: str) -> Callable[[Case, float], None]:
    def plant(case: Case, bias: float) -> None:
        _core(case, LSTM(24), 1e-3)

        def push(model: Any) -> None:
            assert isinstance(model.core, LSTMCore)
            i, f, _, _ = model.core.bias_ih.split(24)
            f.fill_(bias) if gate == "forget" else i.fill_(-bias)

        case.on_model.append(push)

    return plant


def _saddle(case: Case, steps: float) -> None:
    case.train(steps=int(steps))

    def flatten(model: Any) -> None:
        for part in (model.core, model.head):
            for parameter in part.parameters():
                parameter.zero_()

    case.change(core=RNN(24))
    case.on_model.append(flatten)


def _normaliser(case: Case, factor: float) -> None:
    case.on_model.append(lambda model: model.head.deviation.div_(factor))


def _unrelated(case: Case, correlation: float) -> None:
    """Targets of other moments, but for a share of what they should be."""

    def mix(shown: dict[str, list[Example]]) -> None:
        for part, examples in shown.items():
            y = np.concatenate([e.y for e in examples])
            other = y[case.rng.permutation(len(y))]
            mixed, at = (correlation * y + (1 - correlation) * other), 0
            for i, e in enumerate(examples):
                shown[part][i] = replace(e, y=mixed[at : at + len(e)])
                at += len(e)

    case.on_shown.append(mix)


def _past(case: Case, stays: float) -> None:
    """A target that walks at random, and an input that shows where it last was."""

    def walk(shown: dict[str, list[Example]]) -> None:
        for part, examples in shown.items():
            for i, e in enumerate(examples):
                y = np.empty((len(e), 1), np.float32)
                place = case.rng.normal()
                for t, step in enumerate(case.rng.normal(0, 0.1, len(e))):
                    y[t] = place = stays * place + step
                x = np.array(e.x)
                x[1:, 0], x[0, 0] = y[:-1, 0], y[0, 0]
                shown[part][i] = replace(e, x=x, y=y)

    case.on_shown.append(walk)


def _early(case: Case, steps: float) -> None:
    def shift(shown: dict[str, list[Example]]) -> None:
        source = case.recipe.source
        by = int(steps) + (source.delay if case.name == "sensor" and isinstance(source, Echo) else 5)
        for part, examples in shown.items():
            for i, e in enumerate(examples):
                shown[part][i] = replace(e, x=e.x[:-by], y=e.y[by:], time_s=e.time_s[:-by])

    case.on_shown.append(shift)


def _copied(case: Case, share: float) -> None:
    """Training records among the validation records under another name."""
    held = case.records["validation"]
    for i in range(max(1, round(share * len(held)))):
        held[i] = replace(case.records["train"][i], name=f"copy_{i}")


def _nearly(case: Case, share: float) -> None:
    """The same, but for noise that one hardly sees."""

    def copy(shown: dict[str, list[Example]]) -> None:
        held = shown["validation"]
        for i in range(max(1, round(share * len(held)))):
            e = shown["train"][i]
            x = np.array(e.x)
            if case.name == "text":
                x[99::200] = (x[99::200] + 1) % len(SYMBOLS)
            elif case.name == "sensor":
                x += case.rng.normal(0, 0.01, x.shape).astype(x.dtype)
            else:
                x = np.clip(x.astype(int) + case.rng.integers(-1, 2, x.shape), 0, 255).astype(np.uint8)
            held[i] = replace(e, name=f"near_{i}", x=x)

    case.on_shown.append(copy)


def _joined(case: Case, pause_s: float) -> None:
    """Two recordings as one record."""
    for part, records in case.records.items():
        joined = []
        for a, b in zip(records[::2], records[1::2], strict=False):
            streams = {}
            for name, stream in a.streams.items():
                values = np.concatenate((np.asarray(stream.values[:]), np.asarray(b[name].values[:])))
                clock = np.concatenate((stream.time_s, stream.time_s[-1] + pause_s + b[name].time_s))
                streams[name] = Stream(cast(Values, values), clock)
            joined.append(Record(a.name, streams))
        case.records[part] = joined


@dataclass(frozen=True)
class Shuffled(Lanes):
    """Lanes a share of whose batches stand out of order."""

    share: float = 1.0

    def pieces(self, lengths: Sequence[int], rng: np.random.Generator) -> Sequence[list[Piece | None]]:
        made = super().pieces(lengths, rng)
        moved = np.flatnonzero(rng.random(len(made)) < self.share)
        order = np.arange(len(made))
        order[moved] = np.roll(moved, 1)
        return [made[int(i)] for i in order]


@dataclass(frozen=True)
class NeverFresh(Lanes):
    """Lanes that forget, for a share of records, to begin them anew."""

    share: float = 1.0

    def pieces(self, lengths: Sequence[int], rng: np.random.Generator) -> Sequence[list[Piece | None]]:
        made = super().pieces(lengths, rng)
        stale = rng.random(len(lengths)) < self.share
        return [
            [replace(p, fresh=False) if p and time and p.start == 0 and stale[p.record] else p for p in rows]
            for time, rows in enumerate(made)
        ]


def _lanes(kind: type) -> Callable[[Case, float], None]:
    def plant(case: Case, share: float) -> None:
        # Long enough lanes: at least a batch in five can be out of order.
        case.change(batches=kind(batch_size=4, window=10, share=share))

    return plant


def _constant(case: Case, count: float) -> None:
    def hold(shown: dict[str, list[Example]]) -> None:
        for part, examples in shown.items():
            for i, e in enumerate(examples):
                x = np.array(e.x)
                if case.name == "sensor":
                    x[:, -int(count) :] = 1.5
                else:
                    x[:, : 3 * int(count)] = 80
                shown[part][i] = replace(e, x=x)

    case.on_shown.append(hold)


def _broken(case: Case, count: float) -> None:
    def spoil(shown: dict[str, list[Example]]) -> None:
        for _ in range(int(count)):
            i = int(case.rng.integers(len(shown["train"])))
            e = shown["train"][i]
            x = np.array(e.x)
            x[case.rng.integers(len(x)), 1] = np.nan
            shown["train"][i] = replace(e, x=x)

    case.on_shown.append(spoil)


def _answers(case: Case, noise: float) -> None:
    def show(shown: dict[str, list[Example]]) -> None:
        deviation = np.concatenate([e.y for e in shown["train"]]).std()
        for part, examples in shown.items():
            for i, e in enumerate(examples):
                x, y = np.array(e.x), e.y[:, 0] + case.rng.normal(0, noise * deviation, len(e))
                if case.name == "sensor":
                    x[:, 2] = y
                else:
                    x[:, -4:, :4] = np.clip(128 + 40 * y / deviation, 0, 255)[:, None, None, None]
                shown[part][i] = replace(e, x=x)

    if case.name != "text":
        case.on_shown.append(show)


def _head(case: Case, scale: float) -> None:
    case.on_model.append(lambda model: model.head.linear.weight.mul_(scale))


def _memorise(case: Case, noise: float) -> None:
    """One short record to learn from, whose target is mostly noise, for long."""
    case.records["train"] = case.records["train"][:2]
    case.change(core=LSTM(64), batches=Windows(batch_size=4, window=16))
    case.train(steps=300 if case.name != "steering" else 200)

    def stir(shown: dict[str, list[Example]]) -> None:
        for part, examples in shown.items():
            for i, e in enumerate(examples):
                shown[part][i] = replace(e, y=e.y + case.rng.normal(0, noise, e.y.shape).astype(np.float32))

    if case.name != "text":
        case.on_shown.append(stir)


def _unripe(case: Case, steps: float) -> None:
    """Training stopped long before it was done; of the sensor, an answer that a straight line tells."""
    case.train(steps=int(steps), warmup=1)


def _spoilt(case: Case, count: float) -> None:
    def spoil(model: Any) -> None:
        weights = model.core.weight_hh.view(-1)
        weights[case.rng.permutation(len(weights))[: int(count)]] = float("nan")

    case.train(steps=40)
    case.on_trained.append(spoil)


def _nothing(case: Case, severity: float) -> None:
    """The data is the fault."""


ALL = ("sensor", "steering", "text")
NUMBERS = ("sensor", "steering")
FAULTS: dict[str, Fault] = {
    "vanishing-gradient": Fault(_vanishing, ("sensor", "text"), (0.02, 0.06), (0.03, 0.05)),
    "exploding-gradient": Fault(_growing, NUMBERS, (1.3, 1.5), (1.4, 1.45)),
    "memory-unused": Fault(_nothing, ("sensor", "text"), (0,), (0,)),
    "window-too-short": Fault(
        lambda case, steps: case.change(batches=Windows(batch_size=16, window=int(steps))), ("sensor",), (2, 4), (3, 5)
    ),
    "dead-relu": Fault(_dead, NUMBERS, (0.6, 0.95), (0.7, 0.85)),
    "saturated-tanh": Fault(_saturate(RNN(24)), ALL, (30, 100), (40, 80)),
    "saturated-gates": Fault(_saturate(LSTM(24)), ALL, (30, 100), (40, 80)),
    "never-forgets": Fault(_stuck("forget"), ALL, (6, 9), (7, 8)),
    "never-writes": Fault(_stuck("input"), ALL, (6, 9), (7, 8)),
    "saddle": Fault(_saddle, ALL, (40, 150), (60, 100)),
    "rate-too-high": Fault(lambda case, rate: case.train(learning_rate=rate), ALL, (0.5, 2), (0.7, 1)),
    "rate-too-low": Fault(
        lambda case, rate: case.train(learning_rate=rate, final_learning_rate=0.0), ALL, (1e-7, 1e-6), (3e-7, 5e-7)
    ),
    "target-scale": Fault(_normaliser, NUMBERS, (4, 50), (8, 20)),
    "predicts-mean": Fault(_unrelated, NUMBERS, (0, 0.05), (0.02, 0.03)),
    "predicts-past": Fault(_past, ("sensor",), (0.99, 1), (0.995, 0.998)),
    "misaligned": Fault(_early, NUMBERS, (2, 5), (3, 4)),
    "record-in-two-splits": Fault(_copied, ALL, (0.2, 1), (0.4, 0.7)),
    "near-duplicates": Fault(_nearly, ALL, (0.3, 1), (0.4, 0.7)),
    "windows-cross-records": Fault(_joined, NUMBERS, (60, 3600), (100, 600)),
    "shuffled-lanes": Fault(_lanes(Shuffled), ALL, (0.5, 1), (0.6, 0.8)),
    "state-not-reset": Fault(_lanes(NeverFresh), ALL, (0.4, 1), (0.6, 0.8)),
    "constant-input": Fault(_constant, NUMBERS, (1, 3), (2,)),
    "bad-input": Fault(_broken, ("sensor",), (1, 100), (3, 30)),
    "input-holds-answer": Fault(_answers, ALL, (0, 0.08), (0.02, 0.05)),
    "state-drift": Fault(_growing, ("sensor", "text"), (1.05, 1.2), (1.1, 1.15)),
    "initial-loss": Fault(_head, ALL, (20, 100), (30, 60)),
    "overfit": Fault(_memorise, ALL, (0.5, 1), (0.7, 0.9)),
    "worse-than-ridge": Fault(_unripe, NUMBERS, (2, 12), (4, 8)),
    "not-finite": Fault(_spoilt, ALL, (1, 100), (3, 30)),
}
"""Faults by the kind that must be found."""


def data_options(kind: str, severity: float, recipe: str) -> JsonObject:
    """What the data of a case is made with, where that is the fault."""
    if kind == "worse-than-ridge":
        return {"delay": 0} if recipe == "sensor" else {"noise": 0.0}
    if kind == "memory-unused":
        return {"delay": 0} if recipe == "sensor" else {"order": 1}
    if kind == "window-too-short":
        return {"delay": int(severity) + 1}
    if kind == "input-holds-answer" and recipe == "text":
        return {"order": 1, "sharp": 0.002}
    return {}


def faulty(kind: str, seed: int, tuning: bool = False) -> tuple[Case, float]:
    """A case with a fault, drawn by the seed, and its severity."""
    fault, number = FAULTS[kind], list(FAULTS).index(kind)
    rng = np.random.default_rng((seed, number))
    severities = fault.tuned if tuning else fault.tested
    name, severity = fault.recipes[seed % len(fault.recipes)], severities[rng.integers(len(severities))]
    case = CASES[name](rng, **data_options(kind, severity, name))
    fault.plant(case, severity)
    return case, severity


def healthy(number: int, seed: int) -> Case:
    """A case without a fault."""
    name = ALL[(seed + number) % len(ALL)]
    return CASES[name](np.random.default_rng((seed, 1000 + number)))


def seeds_of(seed: int) -> tuple[int, ...]:
    """Seeds of the self-test; UserError where they would be those of the tuning."""
    if not 0 <= seed < TUNED_SEEDS[0] // REPEATS:
        raise UserError(f"--seed {seed}: choose one from 0 to {TUNED_SEEDS[0] // REPEATS - 1}")
    return tuple(range(seed * REPEATS, (seed + 1) * REPEATS))


def visits(seeds: Sequence[int], kinds: Sequence[str], tuning: bool = False) -> Iterator[JsonObject]:
    """One row a trained model: what was planted (None: nothing), and what was found."""
    for seed in seeds:
        for kind in kinds:
            case, severity = faulty(kind, seed, tuning)
            yield _visited(case, kind, severity, seed)
            yield _visited(healthy(list(FAULTS).index(kind), seed), None, 0.0, seed)


def _visited(case: Case, kind: str | None, severity: float, seed: int) -> JsonObject:
    found = examine(trained(case)).findings
    return {
        "planted": kind, "severity": severity, "recipe": case.name, "seed": seed,
        "found": sorted({f.kind for f in found}), "evidence": {f.kind: f.evidence for f in found},
    }  # fmt: skip


def selftest(seed: int = 0, watch: Watch = silent, kinds: Sequence[str] = (), tuning: bool = False) -> JsonObject:
    """Recall over faulty models, false alarms over healthy ones (those with any finding), and a row a kind."""
    torch.set_num_threads(1)  # So that it counts the same on every machine.
    kinds = kinds or list(FAULTS)
    seeds, rows = TUNED_SEEDS if tuning else seeds_of(seed), []
    total = 2 * len(seeds) * len(kinds)
    for row in visits(seeds, kinds, tuning):
        rows.append(row)
        watch("visits", len(rows), total, row["planted"] or "healthy")
    return scored(rows)


def scored(rows: Sequence[JsonObject]) -> JsonObject:
    """Scores of `visits`."""
    ill, well = [r for r in rows if r["planted"]], [r for r in rows if not r["planted"]]
    by_kind = []
    for kind in dict.fromkeys(r["planted"] for r in ill):
        own = [r for r in ill if r["planted"] == kind]
        by_kind.append(
            {
                "kind": kind,
                "planted": len(own),
                "found": sum(kind in r["found"] for r in own),
                "recall": sum(kind in r["found"] for r in own) / len(own),
                "false_alarms": sum(kind in r["found"] for r in well) / len(well),
            }
        )
    return {
        "recall": sum(r["planted"] in r["found"] for r in ill) / len(ill),
        "false_alarms": sum(bool(r["found"]) for r in well) / len(well),
        "kinds": len(by_kind),
        "faulty": len(ill),
        "healthy": len(well),
        "findings": by_kind,
        "missed": [r for r in ill if r["planted"] not in r["found"]],
        "false": [r for r in well if r["found"]],
    }


def selftest_table(scores: JsonObject) -> Table:
    table = Table("finding", "found", "planted", "recall", "false alarms", box=None)
    for row in scores["findings"]:
        table.add_row(
            row["kind"], str(row["found"]), str(row["planted"]), f"{row['recall']:.0%}", f"{row['false_alarms']:.1%}"
        )
    table.add_row("all", "", str(scores["faulty"]), f"{scores['recall']:.1%}", f"{scores['false_alarms']:.1%}")
    return table
