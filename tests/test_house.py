"""How the house is built: no room asks what kind of thing another room's thing is; pages speak of their own."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from small import small

from steersman.evaluation.report import report_run
from steersman.training.fit import fit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "steersman"
OWNERS = {
    "Translation": "recipes/translate",
    "Translator": "recipes/translate",
    "Steering": "recipes/steer",
    "Recipe": "training",
    "StepRecipe": "training",
    "SequenceToSequence": "training",
    "NextSymbolHead": "nn",
    "RegressionHead": "nn",
    "ClassificationHead": "nn",
    "MultiLabelHead": "nn",
    "NumbersHead": "nn",
    "DistributionHead": "nn",
    "EncoderDecoder": "nn",
}
"""Classes that only the room that owns them may ask for by name."""


def test_no_room_asks_for_the_class_of_another_rooms_thing():
    asks = re.compile(rf"isinstance\(.*\b({'|'.join(OWNERS)})\b")
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if (match := asks.search(line)) and not place.startswith(OWNERS[match[1]]):
                found.append(f"{place}:{number}: {line.strip()}")
    assert not found


def test_no_code_looks_at_the_keys_of_scores():
    looks = re.compile(r"[\"'](bleu|bits|rmse|accuracy|confusion|nats)[\"'] (not )?in (scores|found)\b")
    found = [str(f) for f in PACKAGE.rglob("*.py") if looks.search(f.read_text())]
    assert not found


FOREIGN = re.compile(r"\b(steer\w*|roads?|drivers?|left|bends?|laps?|camera)\b", re.IGNORECASE)
"""Words that only a page about driving says."""


@pytest.mark.parametrize("name", ["echo", "digits", "chars", "translate"])
def test_a_page_says_nothing_of_another_application_and_what_it_is(name, tmp_path):
    recipe = small(name)
    recipe = replace(recipe, training=replace(recipe.training, steps=2, validate_every=1))
    run = fit(name, recipe, tmp_path / "a-run", say=lambda text: None, command=f"steersman train {name} --seed 3")
    report_run(run)
    html = (run.folder / "report.html").read_text()
    said = html[: html.index(">Settings<")].replace("steersman", "")  # Settings are the recipe's own fields.
    said = re.sub(r"<style.*?</style>|<script.*?</script>", " ", said, flags=re.DOTALL)
    said = re.sub(r"<[^>]+>", " ", said)
    assert not FOREIGN.findall(said)
    for fact in ("recipe", "made again by", f"steersman train {name} --seed 3", "version", "parameters", "trained for"):
        assert fact in html
