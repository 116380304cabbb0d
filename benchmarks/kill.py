"""`kill -9` at random moments of recording and of training: what is resumed must equal what was never cut.

    python benchmarks/kill.py --kills 20

Works in a temporary folder, takes some minutes, prints a line a kill and exits with 1 where a bit differs.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from steersman.training.trainer import read_log

RECORD = "record car-racing --episodes 24 --max-steps 80 --workers 2 --folder {folder}"
TRAIN = (
    "train steer --data {data} --run {folder} --training.steps 300 --training.precision float32 "
    "--training.checkpoint-every 10 --training.validate-every 40 --batches.batch-size 8 --batches.window 16"
)


def start(command: str) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "steersman", *command.split()], **quiet)


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder; of a log all but the times."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "report.html"):
        content = path.read_bytes()
        if path.name == "log.jsonl":
            content = json.dumps([{**row, "seconds": 0} for row in read_log(folder)]).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def num_episodes(folder: Path) -> str:
    return f"{len(list(folder.glob('meta/episodes/*/*.parquet')))} drives"


def last_checkpoint(folder: Path) -> str:
    steps = [p.name for p in sorted(folder.glob("checkpoints/step-*"))]
    return f"{len(read_log(folder))} steps, {steps[-1] if steps else 'no checkpoint'}"


def say(what: str, after: str, state: str, outcome: str) -> None:
    print(f"{what:10} {after:>9}  {state:29} {outcome}", flush=True)


def killed(what: str, command: str, below: Path, whole: Path, life_s: float, kills: int, state: Callable) -> list[str]:
    """Kills and restarts, in a new folder whenever one is finished; names of the files that differ."""
    differing, number = [], 0
    while True:
        folder = below / f"{what}-{number}"
        process = start(command.format(folder=folder, data=below / "recording"))
        moment_s = random.uniform(0.3, 0.75) * life_s
        try:
            process.wait(moment_s if kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills -= 1
            say(what, f"{moment_s:.1f} s", state(folder), "killed")
            continue
        assert process.returncode == 0, process.communicate()[1].decode()
        found, expected = digests(folder), digests(whole)
        different = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
        outcome = f"differs: {', '.join(different)}" if different else f"all {len(expected)} files identical"
        say(what, "finished", state(folder), outcome)
        differing += different
        number += 1
        if not kills:
            return differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kills of recording, and as many of training")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    random.seed(options.seed)
    say("work", "after", "was there", "outcome")
    differing = []
    with tempfile.TemporaryDirectory() as name:
        below = Path(name)
        for what, command, state in (
            ("recording", RECORD, num_episodes),
            ("training", TRAIN, last_checkpoint),
        ):
            whole = below / what
            began = time.monotonic()
            assert start(command.format(folder=whole, data=below / "recording")).wait() == 0
            life_s = time.monotonic() - began
            say(what, f"{life_s:.1f} s", state(whole), "never cut")
            differing += killed(what, command, below, whole, life_s, options.kills, state)
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
