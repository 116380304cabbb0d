"""Commands of this room."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT, parsed
from ..progress import bars
from ..training.run import Run, find, output_of
from .folder import QUANTISED, export


@dataclass(frozen=True)
class Export:
    """Writes one step of a model in ONNX, once it agreed with PyTorch, with a runner that needs neither."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    out: str = ""
    """Folder to write; an export that exists is replaced. Empty: `export` in the run's folder."""
    data: tuple[str, ...] = ()
    """Recordings to check, calibrate and score on instead of the run's own."""
    int8: bool = False
    """Also write a file in int8, calibrated on training records, with what it loses on held-out ones."""


def export_run(arguments: list[str]) -> None:
    """write one step of a model in ONNX"""
    options = parsed(Export, arguments, "export")
    run = Run.open(find(options.run))
    folder = output_of(run, options.run, options.out, Path("export"))
    with bars() as watch:
        done = export(run, folder, options.data, options.int8, watch)
    OUT.print(f"export: {done.folder}")
    OUT.print(f"greatest difference from PyTorch: {done.disagreement:.2g}")
    if done.error is not None and done.int8_error is not None:
        lost = 100 * (done.int8_error / done.error - 1) if done.error else 0.0
        kept = f", {' and '.join(done.floats)} kept in float32"
        OUT.print(
            f"{QUANTISED}: {done.measure} {done.int8_error:.4g} on held-out records, in float32 {done.error:.4g} "
            f"({lost:+.2f} %){kept}"
        )
