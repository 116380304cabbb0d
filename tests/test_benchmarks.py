"""The benchmarks tell what is wrong with what they are given, as the commands do."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize(
    "given",
    [
        "by_hand.py --run nowhere",
        "chars.py scores nowhere",
        "chars.py race --text nowhere",
        "choices.py --data nowhere",
        "frames.py --log nowhere",
        "live.py same nowhere",
        "searching.py --run nowhere --data nowhere",
        "translate.py --data nowhere --test nowhere nowhere",
        "watching.py --data nowhere",
    ],
)
def test_what_is_not_there_ends_in_a_message(given: str, tmp_path: Path) -> None:
    name, *rest = given.split()
    ended = subprocess.run([sys.executable, FOLDER / name, *rest], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "nowhere" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not any(tmp_path.iterdir())
