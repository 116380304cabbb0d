"""What cameras to the left and the right of the car teach: to come back to the middle.

    python benchmarks/side_cameras.py --folder runs/side-cameras

The scripted expert drives CarRacing undisturbed, as people do, so that its middle camera hardly ever sees what being
off the middle looks like. Two more cameras see the same moments as if the car stood `--beside` metres to the left and
the right. `steer` is trained on the middle camera alone, and with the others' pictures, their steering moved by
`sides.shift` towards the middle (Bojarski et al. 2016, section 2); each then drives the same tracks, that none of them
was trained on. The same steps for all, one thread.
"""

import argparse
import json
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from steersman.errors import exit_with_message
from steersman.recipes import RECIPES
from steersman.recipes.steer.labels import SideCameras, Steering
from steersman.sources import lerobot
from steersman.training.fit import fit
from steersman.training.recipe import StepRecipe
from steersman.worlds import CarRacing
from steersman.worlds.rollout import EXPERT, drive, drives
from steersman.worlds.scores import driving_scores

TRACKS = 700_000
"""The first that is driven for a score; those trained on are numbered from 600,000."""
TRAINED = 600_000
PICTURES = ("picture", "picture_left", "picture_right")


def beside(world, left_m: float) -> np.ndarray:
    """What is seen from so far to the left: the same as if all else were moved to the right."""
    painter, away = world.simulator.painter, world.heading_rad + np.pi / 2
    moved = left_m * np.array([np.cos(away), np.sin(away)])
    corners, middles = painter.corners_m, painter.middles_m
    painter.corners_m, painter.middles_m = corners - moved, middles - moved
    try:
        return painter.paint()
    finally:
        painter.corners_m, painter.middles_m = corners, middles


def recorded(seed: int, left_m: float) -> dict[str, np.ndarray]:
    """One undisturbed drive of the expert."""
    streams = {name: [] for name in (*PICTURES, *CarRacing.labels)}

    def look(world, picture, labels, info) -> None:
        pictures = picture, beside(world, left_m), beside(world, -left_m)
        for name, value in zip(streams, (*pictures, *(labels[n] for n in CarRacing.labels)), strict=True):
            streams[name].append(value)

    drive(CarRacing(), EXPERT, seed, look)
    return {n: np.array(v, np.uint8 if n in PICTURES else np.float32) for n, v in streams.items()}


def record(folder: Path, episodes: int, left_m: float) -> None:
    world = CarRacing().build(render=False)
    kinds = dict.fromkeys(PICTURES, ("uint8", world.observation.shape))
    kinds |= dict.fromkeys(CarRacing.labels, ("float32", ()))
    about = {"beside_m": left_m}
    writer = lerobot.Writer(folder, world.rate_hz, kinds, "drive one lap undisturbed", about)
    for episode in range(episodes):
        writer.add(recorded(TRAINED + episode, left_m))


def with_sides(base: StepRecipe, shift: float) -> Steering:
    given = {f.name: getattr(base, f.name) for f in fields(base)}
    return Steering(**given, sides=SideCameras(shift))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=15, help="drives to train on")
    parser.add_argument("--beside", type=float, default=2.0, help="metres from the middle camera to the others")
    parser.add_argument("--shifts", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.4], help="0: the middle alone")
    parser.add_argument("--steps", type=int, default=600, help="steps of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tracks", type=int, default=10, help="tracks driven for a score")
    parser.add_argument("--folder", type=Path, default=Path("runs/side-cameras"), help="a new one, for drives and runs")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder} exists; name a new folder for drives and runs")
    torch.set_num_threads(1)
    data = options.folder / "drives"
    record(data, options.episodes, options.beside)
    base = RECIPES["steer"](())
    for shift in options.shifts:
        for seed in options.seeds:
            training = replace(base.training, steps=options.steps, seed=seed, precision="float32")
            recipe = replace(with_sides(base, shift), training=training)
            began = time.process_time()
            run = fit("steer", recipe, options.folder / f"{shift:g}-{seed}", [str(data)], "cpu", say=lambda text: None)
            minutes = (time.process_time() - began) / 60
            tracks = range(TRACKS, TRACKS + options.tracks)
            found = driving_scores(list(drives(CarRacing(), str(run.folder), tracks)))
            row = {"shift": shift, "seed": seed, "cpu_minutes": round(minutes, 1), "score": round(found["mean"])}
            row |= {"sd": round(found["sd"] or 0), "laps": found["laps"], "tracks": options.tracks}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
