from pathlib import Path

import pytest
import torch
from hypothesis import settings

from steersman.training import recipe as recipes

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

torch.set_num_threads(1)
settings.register_profile("steersman", deadline=None)  # How long an example takes says nothing on a busy machine.
settings.load_profile("steersman")


@pytest.fixture(scope="session")
def shared_data():
    """Finds a real data set by name; the test is skipped where the set is not on the machine."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"data set {name} is not here (looked in {SHARED})")
        return SHARED / name

    return find


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Prepared pictures of tests are kept out of the user's own cache."""
    folder, before = tmp_path_factory.mktemp("cache"), recipes.cache_folder
    recipes.cache_folder = lambda: folder
    yield
    recipes.cache_folder = before
