"""Steps per CPU second of CarRacing with pictures, beside Gymnasium's own, in turn in one process."""

import argparse
import statistics
import time

import gymnasium
import numpy as np

from steersman.worlds import CarRacing, World

LEFT_TO_STOCK = np.array([-1, 1, 1], np.float32)


def drive(seed: int, num_steps: int) -> list[np.ndarray]:
    """The expert's actions on one track."""
    world = CarRacing().build(render=False)
    world.reset(seed=seed)
    expert, actions = world.expert(), []
    for _ in range(num_steps):
        actions.append(world.act(expert.act(world)))
        if any(world.step(actions[-1])[2:4]):
            break
    return actions


def steps_per_second(env: gymnasium.Env | World, seed: int, actions: list[np.ndarray]) -> float:
    env.reset(seed=seed)
    start = time.process_time()
    for action in actions:
        env.step(action)
    return len(actions) / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    ours, blind = CarRacing().build(), CarRacing().build(render=False)
    stock = gymnasium.make("CarRacing-v3")
    rows = []
    for seed in range(options.seeds):
        actions = drive(seed, options.steps)
        mirrored = [action * LEFT_TO_STOCK for action in actions]
        turn = (stock, mirrored), (ours, actions), (blind, actions)
        rows.append([steps_per_second(env, seed, wanted) for env, wanted in turn])
        print("seed {}: gymnasium {:.0f}, steersman {:.0f}, without pictures {:.0f}".format(seed, *rows[-1]))
    print(f"ratio, median: {statistics.median(row[1] / row[0] for row in rows):.2f}")


if __name__ == "__main__":
    main()
