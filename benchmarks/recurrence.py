"""What recurrence buys: a memory, its twin without one, four pictures, one: on the same drives in the same time.

    python benchmarks/recurrence.py [--folder runs/recurrence] [--seeds 3] [--tracks 30] [--minutes 4] [--workers 2]

Trains every recipe with every seed on drives with and without blackouts, one thread each, so many at a time, for so
many CPU minutes of training steps as measured at the start; lets each drive clear tracks, tracks with blackouts, and
tracks in colours never trained on; prints the table. What is done already is not done again.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman.nn.cores import Memoryless
from steersman.recipes import RECIPES
from steersman.training.fit import fit
from steersman.worlds import CarRacing
from steersman.worlds.recording import Recorded
from steersman.worlds.rollout import drives
from steersman.worlds.scores import driving_scores

TWIN = "steer without its LSTM"
NAMES = ("steer", TWIN, "steer-stack", "steer-frame")
WORLDS = {
    "clear": CarRacing(),
    "blackouts": CarRacing(blackouts=0.2),
    "new colours": CarRacing(domain_randomize=True),
}
FIRST_TRACK = 50_000


def recorded(folder: Path, episodes: int) -> list[str]:
    """Drives with blackouts and as many without, other tracks in each."""
    black = Recorded(CarRacing(blackouts=0.2), episodes, folder=str(folder / "drives-blackouts"))
    clear = Recorded(CarRacing(), episodes, seed=150_000, folder=str(folder / "drives-clear"))
    return [str(source.record()) for source in (black, clear)]


def recipe(name: str, seed: int, steps: int):
    chosen = RECIPES["steer" if name == TWIN else name]([])
    if name == TWIN:
        chosen = replace(chosen, core=Memoryless(), skip=False)
    return replace(chosen, training=replace(chosen.training, steps=steps, seed=seed))


def tracks(title: str, num: int) -> range:
    """Tracks no model was trained on; in new colours a third of them, for few are finished."""
    return range(FIRST_TRACK, FIRST_TRACK + (num // 3 if title == "new colours" else num))


def step_seconds(name: str, folder: Path, episodes: int) -> float:
    """CPU seconds of one training step on one thread, once the first few are done."""
    marks = []
    trial = recipe(name, 0, steps=60)
    trial = replace(trial, training=replace(trial.training, validate_every=1000))
    place = folder / f"trial-{name}-{time.time_ns()}"
    fit(name, trial, place, recorded(folder, episodes), watch=lambda *_: marks.append(time.process_time()))
    return float(np.median(np.diff(marks[-50:])))


def cell(options, name: str, seed: int) -> None:
    """Trains and drives one model, in a process of its own."""
    torch.set_num_threads(1)
    folder = Path(options.folder)
    steps = json.loads((folder / "steps.json").read_text())[name]
    place = folder / f"{name}-{seed}"
    began = time.process_time()
    fit(name, recipe(name, seed, steps), place, recorded(folder, options.episodes))
    done = {"name": name, "seed": seed, "steps": steps, "cpu_seconds": time.process_time() - began}
    for title, world in WORLDS.items():
        done[title] = driving_scores(list(drives(world, str(place), tracks(title, options.tracks))))
    (folder / f"{name}-{seed}.json").write_text(json.dumps(done))


def table(folder: Path, seeds: int, num_tracks: int) -> str:
    """Mean over seeds of the mean over tracks; in brackets the lowest and the highest seed."""
    titles = list(WORLDS)
    lines = ["| model | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for name in NAMES:
        rows = [json.loads((folder / f"{name}-{seed}.json").read_text()) for seed in range(seeds)]
        cells = []
        for title in titles:
            means = [row[title]["mean"] for row in rows]
            laps, num = sum(row[title]["laps"] for row in rows), sum(row[title]["episodes"] for row in rows)
            cells.append(f"{np.mean(means):.0f} ({min(means):.0f} to {max(means):.0f}), {laps} of {num} laps")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    cells = []
    for title, world in WORLDS.items():
        score = driving_scores(list(drives(world, "expert", tracks(title, num_tracks))))
        cells.append(f"{score['mean']:.0f}, {score['laps']} of {score['episodes']} laps")
    lines.append("| the expert | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/recurrence")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tracks", type=int, default=30)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        cell(options, options.cell[0], int(options.cell[1]))
        return
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    recorded(folder, options.episodes)
    torch.set_num_threads(1)
    if not (folder / "steps.json").exists():
        seconds = {name: step_seconds(name, folder, options.episodes) for name in NAMES}
        steps = {name: round(60 * options.minutes / s) for name, s in seconds.items()}
        (folder / "steps.json").write_text(json.dumps(steps))
    print((folder / "steps.json").read_text(), flush=True)
    cells = [(name, seed) for seed in range(options.seeds) for name in NAMES]
    waiting = [(n, s) for n, s in cells if not (folder / f"{n}-{s}.json").exists()]
    running: list[subprocess.Popen] = []
    while waiting or running:
        while waiting and len(running) < options.workers:
            name, seed = waiting.pop(0)
            running.append(subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--cell", name, str(seed)]))
        time.sleep(1)
        if any(p.poll() for p in running):
            for process in running:
                process.terminate()
            sys.exit("a cell failed")
        running = [p for p in running if p.poll() is None]
    print(table(folder, options.seeds, options.tracks))


if __name__ == "__main__":
    main()
