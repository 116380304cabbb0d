"""The main job: record an expert, train with and without a memory, drive tracks never seen, say how it went."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from .checkpoints import write_json
from .config import Spec, to_json
from .drive import EXPERT, Recorded, drives, num_cores
from .evaluate import driving_scores
from .page import write_report
from .progress import Watch
from .recipes import RECIPES
from .report import regression_sections, run_sections
from .runs import Recipe, Run, fit
from .scoring import drive_table, film, report_drives, report_run
from .train import read_log

TITLE = "A recurrent driver on tracks it never saw"
PUBLISHED = (
    ("World Models (VAE + MDN-RNN), v0", 906.0, 21.0, "arXiv 1803.10122"),
    ("World Models without the recurrence, v0", 632.0, 251.0, "arXiv 1803.10122"),
    ("World Models re-run, v3", 915.9, None, "Hugging Face flydexo/world-models-carracing-v3"),
    ("RecurrentPPO, v0", 896.9, 23.0, "Hugging Face drlc-leaderboard-data"),
)
"""Driver, mean, standard deviation, source."""


@dataclass(frozen=True)
class Quickstart:
    """Records drives of the expert, trains a driver with a memory and one without, and lets both drive."""

    folder: str = "runs/quickstart"
    """Where all of it goes; one cut short is gone on with."""
    episodes: int = 30
    """Drives to record."""
    steps: int = 3000
    """Training steps of each model."""
    tracks: int = 10
    """New tracks to drive."""
    seed: int = 2000
    """Of the first of them."""

    def go(self, say: Callable[[str], None], watch: Watch) -> tuple[Table, dict[str, Path]]:
        """The closing table, and where things are."""
        folder = Path(self.folder)
        source = Recorded(episodes=self.episodes, folder=str(folder / "drives"))
        say("1. The expert drives and is recorded: what the camera saw, what the expert did.")
        source.record(watch=watch)
        say("2. A CNN + LSTM learns from the recording; beside it, the same CNN without a memory.")
        runs = self._train({name: _recipe(name, source, self.steps) for name in ("steer", "steer-frame")}, say, watch)
        say(f"3. Both drive {self.tracks} tracks they never saw, and so does the expert.")
        drivers, episodes = {}, {}
        for title, name in _titles(runs).items():
            episodes[title] = []
            for episode in drives(source.world, name, range(self.seed, self.seed + self.tracks), num_cores()):
                episodes[title].append(episode)
                watch(f"driving: {title}", len(episodes[title]), self.tracks, f"score {episode['score']:.0f}")
            drivers[title] = driving_scores(episodes[title])
        filmed = film(source.world, str(runs["steer"].folder), self.seed, folder / "drive.mp4", watch)
        write_json(folder / "driving.json", drivers)
        told = report_drives(TITLE, episodes, filmed, PUBLISHED)
        regression = regression_sections(report_run(runs["steer"], beside=[runs["steer-frame"]]))
        training = run_sections(read_log(runs["steer"].folder), to_json(runs["steer"].recipe))
        write_report(folder / "report.html", replace(told, sections=[*told.sections, *regression, *training]))
        places = {"run": runs["steer"].folder, "report": folder / "report.html", "film": folder / "drive.mp4"}
        return drive_table(drivers, PUBLISHED), places

    def _train(self, recipes: dict[str, Recipe], say, watch: Watch) -> dict[str, Run]:
        """The second model in a process of its own, each on its share of the cores."""
        (first, recipe), (second, other) = recipes.items()
        folder, threads = Path(self.folder), max(1, num_cores() // 2)
        request = {
            "name": second,
            "recipe": to_json(other),
            "folder": str(folder / second),
            "threads": threads,
        }
        with open(folder / f"{second}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "steersman.quickstart", json.dumps(request)], stdout=log, stderr=log
            )
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                run = fit(first, recipe, folder / first, say=say, watch=watch)
                code = process.wait()
            finally:
                process.terminate()
                torch.set_num_threads(before)
        if code:
            raise RuntimeError(f"training {second} failed:\n{(folder / f'{second}.log').read_text()}")
        return {first: run, second: Run.open(folder / second)}


def _titles(runs: dict[str, Run]) -> dict[str, str]:
    names = {"recurrent (one picture a step)": "steer", "single frame": "steer-frame"}
    return {title: str(runs[name].folder) for title, name in names.items()} | {"expert": EXPERT}


def _recipe(name: str, source: Spec, steps: int) -> Recipe:
    recipe = RECIPES[name]([])
    return replace(recipe, source=source, training=replace(recipe.training, steps=steps))


def _train_beside(request: dict[str, Any]) -> None:
    """What the second process does."""
    from .config import from_json

    torch.set_num_threads(request["threads"])
    fit(request["name"], from_json(request["recipe"]), Path(request["folder"]))


if __name__ == "__main__":
    _train_beside(json.loads(sys.argv[1]))
