"""What `train --watch` costs: seconds a step of the same training without a page, and with one that is watched.

    python benchmarks/watching.py --data drives/car-racing-100000 --steps 80 --repeats 3

The two take turns; the page is a process of its own that takes every moment. Prints the median seconds a step of each,
by the clock and of CPU, their ratios, how fast the laps went, and whether the weights are the same. The clock says
nothing on a machine that has other work; what the page's server takes stands back behind all of it.
"""

import argparse
import json
import multiprocessing
import queue
import resource
import struct
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from websockets.sync.client import connect

from steersman.live.watching import watched
from steersman.recipes import RECIPES
from steersman.training.fit import fit
from steersman.training.trainer import read_log


def look_on(address: str, found: multiprocessing.Queue) -> None:
    """A page: how many seconds of a lap came in how many seconds."""
    where = address.replace("http", "ws").replace("/?", "/api/stage?")
    moments, began = [], time.monotonic()
    with connect(where, proxy=None, compression=None) as socket:
        for message in socket:
            if isinstance(message, bytes):
                (length,) = struct.unpack("<I", message[:4])
                moments.append(json.loads(message[4 : 4 + length])["time_s"])
    driven = float(np.maximum(np.diff(moments), 0).sum()) if moments else 0.0
    found.put((driven, time.monotonic() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="drives to train on")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not Path(options.data, "meta", "info.json").is_file():  # Else they would be recorded there.
        parser.error(f"there are no drives in {options.data}; `steersman record` makes some")
    recipe = RECIPES["steer"](())
    training = replace(recipe.training, steps=options.steps, precision="float32", checkpoint_every=20)
    recipe = replace(recipe, source=replace(recipe.source, folder=options.data), training=training)
    seconds: dict[str, list[float]] = {"alone": [], "watched": []}
    cpu: dict[str, list[float]] = {"alone": [], "watched": []}
    weights, laps, spent = set(), [], []
    with tempfile.TemporaryDirectory() as name:
        for turn in range(2 * options.repeats):
            what = ("alone", "watched")[turn % 2]
            folder = Path(name) / str(turn)
            with ExitStack() as open:
                addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
                page, found = None, multiprocessing.get_context("spawn").Queue()
                if what == "watched":
                    open.enter_context(watched(folder, print, lambda where, _, to=addresses: to.put(where), lap_s=10.0))

                moments: list[float] = []

                def look(trainer, batch, what=what, addresses=addresses, found=found, moments=moments):
                    nonlocal page
                    moments.append(time.process_time())
                    if trainer.at.step == 1:
                        if what == "watched":
                            arguments = (addresses.get(timeout=300), found)
                            page = multiprocessing.get_context("spawn").Process(target=look_on, args=arguments)
                            page.start()
                        time.sleep(5)  # Until it is there.
                    return {}

                before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
                fit("steer", recipe, folder, device="cpu", look=look)
            if page:
                page.join()
                laps.append(found.get())
                spent.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
            cpu[what] += np.diff(moments)[1:-1].tolist()
            seconds[what] += [row["seconds"] for row in read_log(folder)[2:-1]]
            weights.add((folder / "model.safetensors").read_bytes())
            print(f"{what}: {np.median(seconds[what]):.3f} s a step, {np.median(cpu[what]):.3f} s of CPU", flush=True)
    for name, found in (("by the clock", seconds), ("of CPU", cpu)):
        alone, beside = (float(np.median(found[what])) for what in ("alone", "watched"))
        print(f"watched / alone, {name}: {beside / alone:.3f} ({alone:.4f} s a step alone, {beside:.4f} s watched)")
    driven, lasted = np.sum(laps, 0)
    print(f"{driven:.0f} s of laps in {lasted:.0f} s; {sum(spent):.1f} s of CPU in page and server")
    print(f"different weights: {len(weights) - 1}")


if __name__ == "__main__":
    main()
