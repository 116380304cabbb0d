"""What is installed with the package: under which licences, and named where."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

requirements = pytest.importorskip("packaging.requirements")
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def direct(extra: str = "all") -> list[str]:
    """What the package and an extra ask for; extras of its own are followed."""
    found = list(PROJECT["project"]["dependencies"])
    for line in EXTRAS[extra]:
        own = re.fullmatch(r"steersman\[(.*)\]", line)
        found += [one for name in own[1].split(",") for one in direct(name)] if own else [line]
    return sorted({requirements.Requirement(line).name for line in found})


def brought(names: list[str]) -> set[str]:
    """All that comes with packages, as far as it is installed; optional parts are left out."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        wanted = map(requirements.Requirement, lines)
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def licence(name: str) -> str:
    about = distribution(name).metadata
    kinds = [kind for kind in about.get_all("Classifier", []) if kind.startswith("License")]
    return "; ".join((about.get("License-Expression") or "", (about.get("License") or "")[:100], *kinds))


def test_no_dependency_is_under_the_gpl():
    names = brought(direct())
    assert len(names) > 30
    assert not [name for name in names if re.search(r"(?<!L)A?GPL|(?<!Lesser )General Public", licence(name))]


def test_every_direct_dependency_stands_on_the_page_of_licences():
    page = (ROOT / "docs" / "licences.md").read_text()
    assert not [name for name in direct() if f"| {name} |" not in page]


def test_what_is_installed_and_built_with_is_pinned():
    pinned = {
        line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    built = [requirements.Requirement(line).name for line in PROJECT["build-system"]["requires"]]
    asked = {re.sub(r"\[.*", "", name).lower().replace("_", "-") for name in (*direct("dev"), *built)}
    assert asked <= pinned
    assert all("<" in line for line in PROJECT["build-system"]["requires"])
