"""Commands of this room."""

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from ..console import OUT, parsed
from ..errors import UserError
from ..evaluation.page import write_report
from ..progress import bars
from ..training.run import Run, find, output_of
from . import examine, patient_of
from .selftest import selftest, selftest_table
from .visit import findings_table, report


@dataclass(frozen=True)
class Doctor:
    """Looks for what went wrong in training, worst first; writes doctor.html into the run's folder."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ""
    """The folder of a run."""
    selftest: bool = False
    """Instead of a run: train small models with planted faults, and healthy ones, and count what is found."""
    seed: int = 0
    """Seed of the self-test; another one draws other faults."""
    out: str = ""
    """Folder of doctor.html; empty: the run's own."""
    json: bool = False
    """Print one JSON object and nothing else."""


def doctor(arguments: list[str]) -> None:
    """say what went wrong in training"""
    options = parsed(Doctor, arguments, "doctor")
    if options.selftest:
        _doctor_selftest(options)
        return
    if not options.run:
        raise UserError("doctor needs a run: steersman doctor RUN, or steersman doctor --selftest")
    run = Run.open(find(options.run))
    page = output_of(run, options.run, options.out) / "doctor.html"
    with bars() as watch:
        diagnosis = examine(patient_of(run, watch), watch)
    write_report(page, report(f"{run.name}: {run.folder.name}, examined", diagnosis))
    if options.json:
        print(json.dumps(diagnosis.json() | {"page": str(page)}))
        return
    OUT.print(findings_table(diagnosis) if diagnosis.findings else "nothing out of the ordinary")
    for name, why in diagnosis.skipped.items():
        OUT.print(f"left out: {name}, for {why}")
    OUT.print(f"page: {page}")


def _doctor_selftest(options: Doctor) -> None:
    with bars() as watch:
        scores = selftest(options.seed, watch)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(selftest_table(scores))
