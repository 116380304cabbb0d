"""What is wrong with the data: leaks between splits, seams, lanes out of order, inputs that say nothing or all."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from ..data.batches import Piece
from ..data.examples import Example
from ..data.inputs import Inputs
from .findings import Finding, Patient, Skipped, above
from .probes import MOST, flat, lagged, regression_rows, single

NEAR = 0.25
"""Distance to the nearest training stretch beside what is usual between training records."""
TWINS = 0.05
"""Share of held-out stretches that may lie so near by chance."""
STRETCH = {"text": 40, "steps": 4}
"""Length of what is compared: characters, or steps of numbers or pictures."""
SEAM = 20.0
"""Times the usual step of the clock."""
ANSWER = 0.98
"""Share of the target that one input may tell."""


def examine_splits(patient: Patient) -> list[Finding]:
    """Copies of records, and of parts of them, on both sides."""
    train, held = patient.shown["train"], patient.shown["validation"]
    known = {_digest(e): e.name for e in train}
    twice = [(e.name, known[_digest(e)]) for e in held if _digest(e) in known]
    names = {e.name for e in train}
    twice += [(e.name, e.name) for e in held if e.name in names and _digest(e) not in known]
    share = len(twice) / len(held)
    if twice:
        text = f"{len(twice)} of {len(held)} validation records are in training too, the first: {twice[0][0]}"
        return [Finding("record-in-two-splits", max(0.3, share), share, text)]
    if not patient.model.aligned:
        return []
    share, count = near_duplicates(train, held)
    text = f"{share:.0%} of {count} stretches of the validation records have a near twin in the training records"
    return above("near-duplicates", share, TWINS, text)


def _digest(example) -> str:
    values = example.contents()
    return hashlib.sha256(b"".join(np.ascontiguousarray(v).tobytes() for v in values)).hexdigest()


def near_duplicates(train: Sequence[Example], held: Sequence[Example]) -> tuple[float, int]:
    """Share of held-out stretches with a near twin in training, and how many were looked at."""
    if _symbols(train[0].x):
        length = STRETCH["text"]
        seen = {piece for e in train for piece in _pieces(e.x, length, 1)}
        asked = [piece for e in held for piece in _pieces(e.x, length, length)]
        return (sum(piece in seen for piece in asked) / len(asked) if asked else 0.0), len(asked)
    ours, owner = _windows(train)
    asked, _ = _windows(held)
    if not len(asked) or len(ours) < 2:
        return 0.0, len(asked)
    mean, deviation = ours.mean(0), ours.std(0) + 1e-6
    ours, asked = (ours - mean) / deviation, (asked - mean) / deviation
    pick = np.linspace(0, len(ours) - 1, min(300, len(ours))).astype(int)
    among = _nearest(ours[pick], ours, owner[pick], owner)
    among = among[np.isfinite(among)]
    if not len(among):
        return 0.0, len(asked)
    apart = _nearest(asked, ours)
    return float((apart < NEAR * np.median(among)).mean()), len(asked)


def _symbols(x: np.ndarray | Inputs) -> bool:
    """Whether it is a text."""
    return not isinstance(x, Inputs) and x.dtype.kind in "iu" and x.ndim == 2


def _pieces(x: np.ndarray, length: int, step: int) -> Iterator[bytes]:
    codes = np.ascontiguousarray(x[:, 0])
    return (codes[a : a + length].tobytes() for a in range(0, len(codes) - length + 1, step))


def _windows(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a few steps, and the number of the record each is from; at most some thousand."""
    length, rows, owner, total = STRETCH["steps"], [], [], sum(map(len, examples))
    every = max(1, total // 4000)
    for number, example in enumerate(examples):
        values = np.nan_to_num(flat(example.x))
        at = np.arange(0, len(values) - length + 1, every)
        rows += [np.concatenate([values[at + i] for i in range(length)], 1)] if len(at) else []
        owner += [number] * len(at)
    return (np.concatenate(rows) if rows else np.zeros((0, 1))), np.array(owner)


def _nearest(asked: np.ndarray, ours: np.ndarray, asker=None, owner=None) -> np.ndarray:
    """Distance of each to the nearest of ours, of another record where owners are given."""
    out = []
    square = (ours**2).sum(1)
    for begin in range(0, len(asked), 256):
        part = asked[begin : begin + 256]
        apart = (part**2).sum(1)[:, None] + square - 2 * part @ ours.T
        if owner is not None and asker is not None:
            apart[asker[begin : begin + 256, None] == owner] = np.inf
        out.append(np.sqrt(np.maximum(apart, 0).min(1)))
    return np.concatenate(out)


def examine_order(patient: Patient) -> list[Finding]:
    """Seams within records, and what the batches carry over from window to window."""
    if not patient.model.aligned:
        raise Skipped("pairs of sequences have no clock and carry no state")
    examples = [e for part in patient.shown.values() for e in part]
    seams = [(e.name, int(at)) for e in examples for at in _seams(e.time_s)]
    found = []
    if seams:
        share = len({name for name, _ in seams}) / len(examples)
        text = f"{len(seams)} leaps of the clock inside records, the first in {seams[0][0]} at step {seams[0][1]}"
        found.append(Finding("windows-cross-records", max(0.3, share), len(seams), text))
    return found + _carried(patient)


def _seams(clock: np.ndarray) -> np.ndarray:
    steps = np.diff(clock)
    usual = np.median(steps) if len(steps) else 0.0
    return np.flatnonzero((steps <= 0) | (steps > SEAM * max(usual, 1e-12))) + 1


def _carried(patient: Patient) -> list[Finding]:
    epoch = patient.batches.epoch(0)
    if not patient.model.aligned:
        return []
    lengths = [len(e) for e in patient.batches.examples]
    over = [p for row in epoch.pieces for p in row if p and p.stop > lengths[p.record]]
    found = []
    if over:
        text = f"{len(over)} windows end beyond their record, the first in record {over[0].record}"
        found.append(Finding("windows-cross-records", 1.0, len(over), text))
    if not patient.batches.spec.carry:
        return found
    pairs = [
        (old, new) for rows, then in zip(epoch.pieces, epoch.pieces[1:], strict=False)
        for old, new in zip(rows, then, strict=True) if new and not new.fresh
    ]  # fmt: skip
    first = [(None, p) for p in epoch.pieces[0] if p and not p.fresh]
    begun = [new for _, new in [*pairs, *first] if new.start == 0]
    if begun:
        text = f"{len(begun)} windows begin a record but go on with the state of what was before"
        found.append(Finding("state-not-reset", 1.0, len(begun) / max(1, len(pairs)), text))
    torn = sum(new.start > 0 and not _follows(old, new) for old, new in pairs)
    share = torn / max(1, len(pairs))
    return found + above("shuffled-lanes", share, 0.01, f"{torn} of {len(pairs)} carried windows follow on another one")


def _follows(old: Piece | None, new: Piece) -> bool:
    return old is not None and old.record == new.record and old.stop == new.start


def examine_inputs(patient: Patient) -> list[Finding]:
    """Constant inputs, NaN, and an input that holds the answer."""
    examples = patient.shown["train"]
    if not patient.model.aligned:
        raise Skipped("what a source holds is not looked at one number at a time")
    found = []
    if not isinstance(examples[0].x, Inputs) and examples[0].x.dtype.kind == "f":  # Of several, NaN may be meant.
        bad = [(e.name, int((~np.isfinite(e.x)).sum())) for part in patient.shown.values() for e in part]
        bad = [(name, count) for name, count in bad if count]
        if bad:
            text = f"{sum(c for _, c in bad)} numbers are NaN or infinite, in {len(bad)} records, the first {bad[0][0]}"
            found.append(Finding("bad-input", 1.0, sum(c for _, c in bad), text))
    return [*found, *_constant(examples), *_answer(patient)]


def _constant(examples: Sequence[Example]) -> list[Finding]:
    x = examples[0].x
    if isinstance(x, Inputs) or x.ndim > 2:
        # Of pictures: whole cells that never change, as behind a mask or a stuck camera.
        values = np.concatenate([flat(e.x) for e in examples[:40]])
    else:
        values = np.concatenate([e.x for e in examples]).astype(float)
    spread = np.nanmax(values, 0) - np.nanmin(values, 0)
    still = np.flatnonzero(~(spread > 0))
    what = "cells of the picture" if not isinstance(x, Inputs) and x.ndim > 2 else "inputs"
    text = f"{len(still)} of {len(spread)} {what} never change, the first: number {still[0] if len(still) else ''}"
    return above("constant-input", len(still) / len(spread), 0.0, text)


def _answer(patient: Patient) -> list[Finding]:
    model = patient.sequence_model()
    if model.head.classes:
        if model.inputs or patient.shown["train"][0].x.ndim != 2 or model.flavour == "many-to-one":
            return []
        share = _told(patient)
        return above("input-holds-answer", share, ANSWER, f"the input's class alone tells {share:.1%} of the targets")
    try:
        rows = regression_rows(patient)
    except Skipped:
        return []
    best, share = single(*lagged(*rows, [0], 0))
    return above("input-holds-answer", share, ANSWER, f"input {best} alone tells {share:.1%} of the target")


def _told(patient: Patient) -> float:
    """Accuracy on validation records of the commonest target of each input's class, as training has it."""
    head, pairs = patient.model.head, {}
    for part in ("train", "validation"):
        examples = patient.shown[part]
        x = np.concatenate([e.x for e in examples])
        y = head.labels(np.concatenate([e.y[:, 0] for e in examples]))
        best = max(range(x.shape[1]), key=lambda i: len(np.unique(x[:MOST, i])))
        pairs[part] = np.round(x[:, best], 6)[:MOST], y[:MOST]
    keys, where = np.unique(pairs["train"][0], return_inverse=True)
    counts = np.zeros((len(keys), head.classes))
    np.add.at(counts, (where, pairs["train"][1]), 1)
    x, y = pairs["validation"]
    at = np.searchsorted(keys, x).clip(0, len(keys) - 1)
    return float(np.mean((keys[at] == x) & (counts.argmax(1)[at] == y)))
