"""The main job: record an expert, train with and without a memory, drive tracks never seen, say how it went."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.table import Table

from ..config import Spec
from ..evaluation.page import write_report
from ..evaluation.report import evaluate_run, told_sections, write_outcome
from ..processes import in_parallel, num_cores
from ..progress import Watch, silent
from ..recipes import RECIPES
from ..training.checkpoints import write_json
from ..training.fit import fit
from ..training.run import Run
from ..worlds.recording import Recorded
from ..worlds.report import film, report_drives
from ..worlds.rollout import EXPERT, drives
from ..worlds.scores import drive_table, driving_scores

TITLE = "A recurrent driver on tracks it never saw"
PUBLISHED = (
    ("World Models (VAE + MDN-RNN), v0", 906.0, 21.0, "arXiv 1803.10122"),
    ("World Models without the recurrence, v0", 632.0, 251.0, "arXiv 1803.10122"),
    ("World Models re-run, v3", 915.9, None, "Hugging Face flydexo/world-models-carracing-v3"),
    ("RecurrentPPO, v0", 896.9, 23.0, "Hugging Face drlc-leaderboard-data"),
)
"""Driver, mean, standard deviation, source."""


@dataclass(frozen=True)
class Quickstart(Spec):
    """Records drives of the expert, trains a driver with a memory and one without, and lets both drive."""

    folder: str = "runs/quickstart"
    """Folder of all results; one cut short is resumed."""
    episodes: int = 60
    """Drives to record."""
    steps: int = 2000
    """Training steps of each model."""
    tracks: int = 10
    """New tracks to drive."""
    seed: int = 2000
    """Seed of the first track; the rest count up from it."""

    BOUNDS = {"episodes": (3, math.inf), "steps": (1, math.inf), "tracks": (1, math.inf), "seed": (0, math.inf)}

    def go(self, say: Callable[[str], None], watch: Watch) -> tuple[Table, dict[str, Path]]:
        """The closing table, and where things are."""
        folder = Path(self.folder)
        source = Recorded(episodes=self.episodes, folder=str(folder / "drives"))
        say("1. The expert drives and is recorded: what the camera saw, what the expert did.")
        source.record(watch=watch)
        say("2. A CNN + LSTM learns from the recording; beside it, the same CNN without a memory.")
        names = ("steer", "steer-frame")
        # Side by side, a thread each: two such models learn sooner so than one after the other on two.
        folders = in_parallel(partial(trained, self, source), names, min(num_cores(), len(names)), watch)
        runs = {name: Run.open(folder) for name, folder in zip(names, folders, strict=True)}
        say(f"3. Both drive {self.tracks} tracks they never saw, and so does the expert.")
        drivers, episodes = {}, {}
        for title, name in _titles(runs).items():
            episodes[title] = []
            for episode in drives(source.world, name, range(self.seed, self.seed + self.tracks), num_cores()):
                episodes[title].append(episode)
                watch(f"driving: {title}", len(episodes[title]), self.tracks, f"score {episode.score:.0f}")
            drivers[title] = driving_scores(episodes[title])
        filmed = film(source.world, str(runs["steer"].folder), self.seed, folder / "drive.mp4", watch)
        write_json(folder / "driving.json", drivers)
        told = report_drives(TITLE, episodes, filmed, PUBLISHED)
        run = runs["steer"]
        _, outcome = evaluate_run(run, beside=[runs["steer-frame"]])
        write_outcome(run, outcome, f"{run.name}: {run.folder.name}", run.folder)
        sections = [*told.sections, *told_sections(run, outcome)]
        write_report(folder / "report.html", replace(told, sections=sections))
        places = {"run": runs["steer"].folder, "report": folder / "report.html", "film": folder / "drive.mp4"}
        return drive_table(drivers, source.world.words, PUBLISHED), places


def trained(quickstart: Quickstart, source: Recorded, name: str, watch: Watch = silent) -> Path:
    """The folder of one model, trained as far as it was not."""
    recipe = RECIPES[name]([])
    recipe = replace(recipe, source=source, training=replace(recipe.training, steps=quickstart.steps))

    def named(what: str, done: int, total: int, note: str = "") -> None:
        watch(f"{name}: {what}", done, total, note)

    def say(text: str) -> None:
        named(text, 1, 1)

    return fit(
        name, recipe, Path(quickstart.folder) / name, say=say, watch=named, command="steersman quickstart"
    ).folder


def _titles(runs: dict[str, Run]) -> dict[str, str]:
    names = {"recurrent": "steer", "single frame": "steer-frame"}
    return {title: str(runs[name].folder) for title, name in names.items()} | {"expert": EXPERT}
