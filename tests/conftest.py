from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """Finds a real data set by name; the test is skipped where the set is not on the machine."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"data set {name} is not here (looked in {SHARED})")
        return SHARED / name

    return find
