"""Pictures a second: read by a log's reader beside plain Pillow, and from the cache through the batches of an epoch.

Each round does both in turn in one process, by CPU time, as ratios; run it on one core (taskset -c 0).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from steersman.data.batches import Batches, Lanes
from steersman.data.examples import Reading, Wanted, examples
from steersman.data.frames import Frames
from steersman.data.records import Record, Stream
from steersman.errors import exit_with_message
from steersman.nn.pictures import Picture

SIZE = (160, 120)
"""Width and height of a donkeycar's pictures."""


def road(rng: np.random.Generator) -> Image.Image:
    """Smooth shades and some noise: about as much for a decoder to do as a photograph."""
    shades = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (*SIZE[::-1], 3))
    return Image.fromarray(np.clip(np.asarray(shades) + noise, 0, 255).astype(np.uint8))


def write(folder: Path, num: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.jpg" for i in range(num)]
    for path in paths:
        road(rng).save(path, "JPEG", quality=90)
    return paths


def plain(paths: Sequence[Path]) -> int:
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB"))
    return len(paths)


def read(paths: Sequence[Path]) -> int:
    pictures = Frames(paths)
    return sum(len(pictures[start : start + 256]) for start in range(0, len(pictures), 256))


def epoch(batches: Batches, number: int) -> int:
    return sum(int((batch.mask > 0).sum()) for batch in batches.epoch(number))


def per_second(work: Callable[[], int]) -> float:
    start = time.process_time()
    return work() / (time.process_time() - start)


def told(name: str, found: list[float], digits: int) -> str:
    median, spread = statistics.median(found), (min(found), max(found))
    return f"{name}: {median:,.{digits}f} ({spread[0]:,.{digits}f} to {spread[1]:,.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--log", type=Path, help="a folder of jpegs in place of made-up ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        paths = sorted(options.log.rglob("*.jpg")) if options.log else write(Path(made), options.frames)
        if options.log and not paths:
            parser.error(f"there is no .jpg below {options.log}")
        paths = paths[: options.frames]
        clock = np.arange(len(paths)) / 20
        steer = np.zeros(len(paths), np.float32)
        record = Record("drive", {"picture": Stream(Frames(paths), clock), "steer": Stream(steer, clock)})
        spec = Picture(66, 200)
        shown = []

        def prepare(pictures: np.ndarray) -> np.ndarray:
            return spec.prepare(torch.as_tensor(pictures)).numpy()

        def cache(key: str) -> int:
            wanted = Wanted([Reading("picture", prepare, key)], "picture", ["steer"])
            shown[:] = examples([record], wanted, Path(made) / "cache")
            return len(paths)

        rows: dict[str, list[float]] = {name: [] for name in ("pillow", "steersman", "cold", "cached")}
        plain(paths)
        for number in range(options.rounds):
            rows["pillow"].append(per_second(lambda: plain(paths)))
            rows["steersman"].append(per_second(lambda: read(paths)))
            rows["cold"].append(per_second(lambda number=number: cache(str(number))))
            batches = Batches(Lanes(batch_size=32, window=32), shown, ["steer"])
            epoch(batches, 0)
            rows["cached"].append(per_second(lambda batches=batches: epoch(batches, 1)))
    height, width = record["picture"].values.shape[1:3]
    print(f"{len(paths)} jpegs of {width}x{height}, {options.rounds} rounds: median (least to most)")
    print(told("plain Pillow, frames/s", rows["pillow"], 0))
    print(told("steersman, frames/s", rows["steersman"], 0))
    print(told("decoded and prepared to 66x200 for the cache, frames/s", rows["cold"], 0))
    print(told("second epoch from the cache at 66x200, frames/s", rows["cached"], 0))
    pairs = zip(rows["steersman"], rows["pillow"], strict=True)
    print(told("steersman / Pillow", [ours / theirs for ours, theirs in pairs], 3))
    pairs = zip(rows["cached"], rows["cold"], strict=True)
    print(told("second epoch / first preparation", [warm / cold for warm, cold in pairs], 1))


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
