"""The whole visit: from a run to its findings, as a table, JSON and a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from ..console import counted
from ..errors import NotFinite, UserError
from ..evaluation.page import Fact, Report, Section
from ..evaluation.plots import INK, MODEL, draw
from ..json_types import JsonObject
from ..progress import Watch, silent
from ..training.checkpoints import Checkpoints
from ..training.prepare import prepare
from ..training.recipe import read_records
from ..training.run import Run
from ..training.trainer import read_log
from .findings import Curve, Finding, Patient, Skipped
from .finite import examine_numbers, examine_weights
from .fits import examine_gap, examine_start
from .gradients import examine_gradients
from .inputs import examine_inputs, examine_order, examine_splits
from .memory import examine_memory, examine_windows
from .states import MOST_NORM, examine_state
from .surface import checkpoint_updates, examine_rate, examine_surface
from .targets import examine_alignment, examine_rivals, examine_targets
from .units import examine_units

GROUPS: dict[str, Callable[[Patient], list[Finding]]] = {
    "weights": examine_weights,
    "losses and gradients": examine_numbers,
    "gradient by lag": examine_gradients,
    "memory in fact used": examine_memory,
    "training windows": examine_windows,
    "units and gates": examine_units,
    "loss surface": examine_surface,
    "size of updates": examine_rate,
    "targets": examine_targets,
    "beside ridge regression": examine_rivals,
    "alignment of labels": examine_alignment,
    "splits": examine_splits,
    "order of the data": examine_order,
    "inputs": examine_inputs,
    "state over a long stream": examine_state,
    "first loss": examine_start,
    "held-out gap": examine_gap,
}
"""What is looked at, in order."""


@dataclass(frozen=True)
class Diagnosis:
    """Findings, worst first, why some groups were left out, and what the others saw as a line."""

    findings: list[Finding]
    skipped: dict[str, str]
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)

    def json(self) -> JsonObject:
        return {
            "findings": [f.json() for f in self.findings],
            "skipped": self.skipped,
            "looked_at": [g for g in GROUPS if g not in self.skipped],
        }


def examine(patient: Patient, watch: Watch = silent) -> Diagnosis:
    """Findings of every group that applies; where numbers are not finite, what follows from them is not looked at."""
    found: list[Finding] = []
    skipped: dict[str, str] = {}
    curves: dict[str, Sequence[Curve]] = {}
    order = sorted(GROUPS, key=lambda name: name not in FIRST)
    for done, name in enumerate(order):
        watch("looking", done, len(order), name)
        if any(f.kind == "bad-input" for f in found) and name not in DATA:
            skipped[name] = "inputs are NaN or infinite"
            continue
        if any(f.kind == "not-finite" for f in found) and name not in DATA:
            skipped[name] = "weights, or what follows from them, are NaN or infinite"
            continue
        patient.curves = []
        try:
            found += GROUPS[name](patient)
            curves[name] = patient.curves
        except Skipped as why:
            skipped[name] = str(why)
        except NotFinite:
            skipped[name] = UNBOUNDED
    if UNBOUNDED in skipped.values() and not any(f.kind == "state-drift" for f in found):
        found.append(Finding("state-drift", 1.0, MOST_NORM, f"on whole records {UNBOUNDED}"))
    watch("looking", len(order), len(order))
    return Diagnosis(sorted(found, key=lambda f: -f.severity), skipped, curves)


UNBOUNDED = "the state grows to NaN or infinity"
FIRST = ("weights", "losses and gradients", "inputs")
"""Groups without which the others say nothing."""
DATA = ("weights", "inputs", "splits", "order of the data", "size of updates")
"""Groups that need no pass of the model."""


def patient_of(run: Run, watch: Watch = silent) -> Patient:
    """A run with its data, its log and its last checkpoint, where there is one. UserError without weights."""
    if not (run.folder / "model.safetensors").exists():
        raise UserError(
            f"{run.folder} has no weights yet: training was stopped before its first look at the validation records; "
            "resume it, or set --training.validate-every lower"
        )
    extra = read_records(run.recipe, run.extra, watch) if run.extra else []
    made = prepare(run.recipe, run.records(watch), extra, model=run.model(whole=False), watch=watch)
    model, training = made.model, made.recipe.training
    updates, checkpoints = {}, Checkpoints(run.folder / "checkpoints")
    if steps := checkpoints.steps():
        tensors, _ = checkpoints.read(steps[-1])
        updates = checkpoint_updates(model, tensors, training)
    return Patient(model, made.examples, made.batches, read_log(run.folder), updates)


def findings_table(diagnosis: Diagnosis) -> Table:
    """Worst first."""
    table = Table("finding", "severity", "evidence", "what to try", box=None)
    for f in diagnosis.findings:
        table.add_row(f.kind, f"{f.severity:.2f}", f"{f.evidence}. {f.meaning}", f.advice)
    return table


def report(title: str, diagnosis: Diagnosis) -> Report:
    """The page."""
    findings = diagnosis.findings
    looked = [name for name in GROUPS if name not in diagnosis.skipped]
    summary = (
        f"{counted(len(findings), 'finding')}, the worst first: {', '.join(f.kind for f in findings)}."
        if findings
        else "Nothing that was looked at is out of the ordinary."
    )
    facts = [Fact("Findings", str(len(findings))), Fact("Groups looked at", f"{len(looked)} of {len(GROUPS)}")]
    sections = [
        Section(
            f.kind.replace("-", " ").capitalize(),
            f"{f.evidence[0].upper()}{f.evidence[1:]}. {f.meaning} What to try: {f.advice}",
            [_plot(f.curve, "the evidence for this finding")] if f.curve else [],
        )
        for f in findings
    ]
    shown = [f.curve for f in findings if f.curve]
    plots = [
        _plot(curve, f"as {name} was looked at")
        for name in GROUPS
        for curve in diagnosis.curves.get(name, ())
        if curve not in shown and np.isfinite(curve.y).all()
    ]
    text = f"Looked at: {', '.join(looked)}."
    left = "".join(f" {name.capitalize()}: left out, for {why}." for name, why in diagnosis.skipped.items())
    return Report(title, summary, facts, [*sections, Section("What was looked at", text + left, plots)])


def _plot(curve: Curve, what: str):
    def paint(drawing, is_wide: bool) -> None:
        axes = drawing.subplots()
        axes.plot(curve.x, curve.y, color=MODEL, marker="o", markersize=4)
        y = np.asarray(curve.y, float)
        if (y > 0).all() and y.max() > 100 * y.min():
            axes.set_yscale("log")
            axes.minorticks_off()
        if (y < 0).any():
            axes.axhline(0, color=INK, linewidth=1)
        axes.set_title(curve.y_label)
        axes.set_xlabel(curve.x_label)

    return draw(f"{curve.y_label.capitalize()} over {curve.x_label}: {what}.", paint, 250, 250)
