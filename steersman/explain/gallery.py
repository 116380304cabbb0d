"""Every kind of picture, of a run and of training."""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av

from ..errors import UserError
from ..files import write_file
from ..progress import Watch, silent
from ..training.run import Run, find
from ..training.task import task_of
from ..worlds.recording import own_drives
from ..worlds.report import film
from .circuits import circuit, draw
from .gates import draw_gates
from .saliency import draw_saliency, film_saliency
from .samples import Sample, open_sample
from .surface import draw_relu, draw_saddle, draw_surface
from .unrolled import draw_unrolled

UNROLLED, GATES, SALIENCY, FILMED = 8, 60, 24, 100
"""Steps that each picture shows; the film's are every second one of a drive at 50 Hz."""
DRIVEN, SHOWN_HZ, SHOWN_WIDTH, MOST_BYTES = 900, 10, 560, 3_000_000
"""Steps of the moving picture's drive, its frames a second, columns, and bytes at most."""
MOST = {"unrolled": 12, "other": 400}
"""Steps that a picture can show and be read."""


def _sample(run: Run, number: int, data: Sequence[str], steps: int, watch: Watch, columns: bool = False) -> Sample:
    if not 0 <= steps <= MOST["other"]:
        raise UserError(f"--steps must be from 0 to {MOST['other']}, found {steps}")
    return open_sample(run, number, data, watch, columns)


def draw_run(
    run: Run, number: int, data: Sequence[str], at: int, steps: int, folder: Path, watch: Watch = silent
) -> list[str]:
    """The model unrolled, and its gates over time; what was written and found, a line each."""
    sample = _sample(run, number, data, steps, watch)
    at = sample.last(at, GATES)
    path, found = draw_unrolled(sample, at, min(steps or UNROLLED, MOST["unrolled"]), folder / "unrolled.png")
    lines = [f"unrolled: {path}"]
    if steps > MOST["unrolled"]:
        lines.append(f"the last {MOST['unrolled']} of {steps} steps are unrolled: more can't be read")
    gates = draw_gates(sample, at, steps or GATES, folder / "gates.png")
    lines += [f"gates: {file}" for file in gates]
    if not sample.model.causal:
        lines.append("no gates over time: a bidirectional core reads from both ends; unrolled shows what applies")
    elif not gates:
        lines.append("no gates over time: this core has no memory")
    elif found.target:
        first, last = found.through_time(0), found.through_time(found.target)
        lines.append(f"the gradient goes from {last:.3g} to {first:.3g} over {found.target} steps back")
    return lines


def draw_run_saliency(
    run: Run, number: int, data: Sequence[str], at: int, steps: int, folder: Path, watch: Watch = silent
) -> list[str]:
    """Integrated gradients, and of a drive a film; what was written and found, a line each."""
    sample = _sample(run, number, data, steps, watch, columns=True)
    at = sample.last(at, GATES) if at >= 0 else sample.telling(GATES)
    # Of a record with one answer all of it counts.
    steps = steps or (MOST["other"] if sample.columns and sample.model.flavour == "many-to-one" else SALIENCY)
    path, found = draw_saliency(sample, at, steps, folder / "saliency.png")
    lines = [f"saliency: {path}"]
    targets = sample.model.head.targets
    turns = task_of(run.recipe).panels(targets).get("wheel") == targets[0]
    if turns and not sample.columns and sample.example.x.ndim == 4 and sample.example.y.ndim == 2:
        lines.append(f"film: {film_saliency(sample, at, steps, FILMED, folder / 'saliency.mp4', watch)}")
    total = found.prediction - found.plain
    return [*lines, f"attributions sum to {found.values.sum():+.4f}, the outputs differ by {total:+.4f}"]


def gallery(folder: Path, text: Run | None = None, watch: Watch = silent) -> list[Path]:
    """All pictures of the documentation; with a run of a text its own, too."""
    files = [draw_surface(folder / "surface.png"), draw_saddle(folder / "saddle.png"), draw_relu(folder / "relu.png")]
    given = {"w0": 2.0, "x0": -1.0, "w1": -3.0, "x1": -2.0, "w2": -3.0}
    files += draw(circuit("sigmoid(w0 * x0 + w1 * x1 + w2)", given), folder / "circuit")
    with tempfile.TemporaryDirectory() as drives:
        filmed = Path(drives) / "drive.mp4"
        steer = Run.open(find("steer"))
        source = own_drives(steer.recipe)
        assert source, "the model that ships with the package drives"
        world: Any = source.world
        one = replace(source, world=replace(world, max_steps=260), episodes=1, seed=2000, folder=f"{drives}/one")
        film(replace(world, max_steps=DRIVEN), "steer", 2000, filmed, watch)
        files.append(moving(filmed, folder / "drive.webp"))
        shown = [("steer", steer, [str(one.record(watch=watch))])]
        if text is not None:
            shown.append(("text", text, []))
        for name, run, data in shown:
            sample = open_sample(run, 0, data, watch)
            at = sample.last(-1, GATES)
            files.append(draw_unrolled(sample, at, UNROLLED, folder / f"{name}-unrolled.png")[0])
            files += draw_gates(sample, at, GATES, folder / f"{name}-gates.png")
            files.append(draw_saliency(sample, sample.telling(GATES), SALIENCY, folder / f"{name}-saliency.png")[0])
    return files


def moving(source: Path, path: Path) -> Path:
    """A film as a moving picture for a page, no larger than 3 MB."""
    with av.open(str(source)) as opened:
        stream = opened.streams.video[0]
        every = max(1, round(float(stream.average_rate or 25) / SHOWN_HZ))
        frames = [frame.to_image() for i, frame in enumerate(opened.decode(stream)) if i % every == 0]
    frames = [frame.resize((SHOWN_WIDTH, round(SHOWN_WIDTH * frame.height / frame.width))) for frame in frames]
    for quality in (75, 60, 45, 30, 15):
        drawn = io.BytesIO()
        each_ms = round(1000 / SHOWN_HZ)
        frames[0].save(
            drawn, "WEBP", save_all=True, append_images=frames[1:], duration=each_ms, loop=0, quality=quality
        )
        if drawn.tell() <= MOST_BYTES:
            break
    write_file(path, drawn.getvalue())
    return path
