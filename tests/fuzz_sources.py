"""Readers on files that a coverage-guided fuzzer changes: `make fuzz`, or `python tests/fuzz_sources.py -help=1`.

Each input chooses a log, one of its files, and what replaces that file's bytes from a place on. A crash other than
UserError is a bug; its input is written beside the corpus.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent / "sources"))
from fuzzing import fuzz
from test_broken_logs import LOGS, NAMED, files, use


def main():
    root = Path(tempfile.mkdtemp())
    made = []
    for name in ("lerobot v2", "donkeycar", "udacity_sim", "udacity_ch2", "deeptesla", "pictures", "video"):
        path = root / "originals" / name
        if not name.startswith("lerobot"):
            path.mkdir(parents=True)
        LOGS[name](path)
        made.append((name, path, files(path)))

    def one(data: bytes) -> None:
        given = atheris.FuzzedDataProvider(data)
        name, original, found = given.PickValueInList(made)
        file = given.PickValueInList(found)
        content = file.read_bytes()
        place = given.ConsumeIntInRange(0, len(content))
        new = given.ConsumeBytes(given.remaining_bytes())
        copy = root / "log"
        shutil.copytree(original, copy)
        try:
            kept = content[place + len(new) :] if len(new) % 2 else b""
            (copy / file.relative_to(original)).write_bytes(content[:place] + new + kept)
            use(copy, NAMED.get(name, ""))
        finally:
            shutil.rmtree(copy)

    try:
        fuzz(one)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
