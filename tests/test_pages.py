"""Pages of the project: their layout, and what they say of each other."""

import re
import tomllib
from pathlib import Path

import pytest

from steersman.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "steersman").rglob("*.md")])
COLUMNS, TABLE_COLUMNS = 120, 140


def too_long(text: str) -> list[str]:
    """Lines beyond the columns of a page; a row of a table may go a little further."""
    limits = ((line, TABLE_COLUMNS if line.startswith("|") else COLUMNS) for line in text.splitlines())
    return [line for line, limit in limits if len(line) > limit]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_a_page_wrap(page):
    assert too_long(page.read_text()) == []


def test_a_line_that_does_not_wrap_is_found():
    assert too_long("a" * 120 + "\n|" + "b" * 139) == []
    assert too_long("a" * 121 + "\n|" + "b" * 140) == ["a" * 121, "|" + "b" * 140]


def anchors(page: Path) -> set[str]:
    """Names that a forge gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", prose):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def test_every_page_of_results_is_in_their_index():
    index = (ROOT / "docs" / "results" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs" / "results").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\(([a-z-]+\.md)\)", index))


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["scikit-build"]["metadata"]["version"]["input"] == "steersman/version.py"
    assert __version__ in (ROOT / "steersman" / "version.py").read_text()
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] in (
        "Unreleased",
        __version__,
    )
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
