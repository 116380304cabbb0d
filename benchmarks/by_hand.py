"""What a model learns from a drive by hand, and what it forgets: losses and scores before and after learning once.

    python benchmarks/by_hand.py --speed 25

The person is the expert's wheel with a foot that keeps to a speed, through the wheel and the recorder of `steersman
live`. The run's own drives are recorded first where they are missing. Prints the mix, losses on the person's steps and
on the run's test records, scores, and the CPU that learning took.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from steersman.errors import exit_with_message
from steersman.live.learner import Learning
from steersman.live.recorder import Recorder
from steersman.live.wheel import Wheel
from steersman.progress import silent
from steersman.sources import read
from steersman.training.run import Run, find
from steersman.worlds.rollout import drive
from steersman.worlds.scores import driving_scores


def drive_by_hand(run: Run, folder: Path, speed_mps: float, seed: int) -> None:
    config, model = run.recipe.source.world, run.model()  # pyright: ignore[reportAttributeAccessIssue]
    world = config.build()
    recorder = Recorder(folder, config, world.rate_hz, world.observation, lambda event: None)
    wheel, expert = Wheel(world.controls, recorder), world.expert()
    picture, info = world.reset(seed)
    state, done = None, False
    while not done:
        prediction, state = model.step(picture, state)
        missing = speed_mps - info["speed_mps"]
        wheel.take({"steer": expert.act(world)["steer"], "gas": 0.4 * (missing > 0), "brake": 0.2 * (missing < -5)})
        picture, _, terminated, truncated, info = world.step(wheel.action(world, picture, prediction))
        done = terminated or truncated
    recorder.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="steer")
    parser.add_argument("--speed", type=float, default=25.0, help="metres a second that the person keeps to")
    parser.add_argument("--seed", type=int, default=300_000, help="seed of the track that the person drives")
    parser.add_argument("--tracks", type=int, default=5, help="tracks that the model drives before and after")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, cpu = Run.open(find(options.run)), []

    def look(trainer, batch):
        cpu.append(time.process_time())
        return {}

    with tempfile.TemporaryDirectory() as name:
        hands = Path(name) / "hands"
        drive_by_hand(run, hands, options.speed, options.seed)
        after = Learning().fit(run, hands, Path(name) / "after", print, silent, look)
        kept = {"the person's steps": read(hands), "the run's test records": run.records()["test"]}
        for what, records in kept.items():
            shown = run.recipe.examples(run.model(), records)
            losses = [one.model().held_out_loss(shown) for one in (run, after)]
            print(f"loss on {what}: {losses[0]:.4f} before, {losses[1]:.4f} after")
        config = run.recipe.source.world  # pyright: ignore[reportAttributeAccessIssue]
        for when, folder in (("before", str(run.folder)), ("after", str(after.folder))):
            scores = driving_scores([drive(config, folder, 2000 + i) for i in range(options.tracks)])
            print(f"score {when}: {scores['mean']:.1f} on {options.tracks} tracks never seen")
    print(f"{len(cpu)} steps, {(cpu[-1] - cpu[0]) / (len(cpu) - 1):.3f} s of CPU each, on one thread")


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
