"""A text and its class: what is read, what is refused, what is said of new texts."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from steersman.errors import UserError
from steersman.evaluation.predict import follow, predict
from steersman.recipes.text.classify import ClassifyText, classify_text
from steersman.training.fit import fit
from steersman.training.prepare import divide
from steersman.training.recipe import read_records
from steersman.training.run import Run

SAID = {"en": 'He said: "go, then"', "de": "Er sagte: geh, dann;", "fr": "Il a dit : été 12,5"}


def rows(num: int = 12) -> list[dict[str, str]]:
    return [{"text": text, "label": name} for _ in range(num) for name, text in SAID.items()]


def written(path, table) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        sign = "," if path.suffix == ".csv" else "\t"
        cells = [list(table[0]), *(list(row.values()) for row in table)]
        quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in cells]
        path.write_text("\n".join(sign.join(row) for row in quoted) + "\n")
    return str(path)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv"])
def test_a_row_is_a_text_in_any_format(tmp_path, ending):
    recipe = classify_text()
    found = read_records(recipe, [written(tmp_path / f"t{ending}", rows(1))])
    assert ["".join(map(chr, np.asarray(r["character"].values))) for r in found] == list(SAID.values())
    assert [r["label"].values[0] for r in found] == list(SAID)
    cut = read_records(replace(recipe, characters=4), [str(tmp_path / f"t{ending}")])
    assert [len(r) for r in cut] == [4, 4, 4]
    assert cut[0]["label"].time_s == [3.0]


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        ([{"text": "a", "mood": "good"}] * 3, {}, "needs its --label named; it has text, mood"),
        ([{"text": "a", "mood": "good"}] * 3, {"label": "mod"}, "no column 'mod'; did you mean 'mood'"),
        ([{"text": "a", "label": "x"}] * 9, {}, "is 'x' throughout"),
        ([{"text": " ", "label": "x"}] * 9, {}, "holds no text"),
        ([{**row, "part": "other"} for row in rows()], {"part": "part"}, "'part' is 'other'; it says train"),
        ([{**row, "part": "train"} for row in rows()], {"part": "part"}, "no text is of the part validation"),
    ],
)
def test_tables_that_teach_nothing_are_refused(tmp_path, table, changes, said):
    recipe = replace(classify_text(), **changes)
    with pytest.raises(UserError, match=said):
        recipe.adapt(divide(recipe, [written(tmp_path / "t.jsonl", table)]))


def test_classes_are_learned_by_the_parts_of_a_column_and_said_of_new_texts(tmp_path):
    table = [{**row, "part": ("train", "dev", "test")[(i >= 30) + (i >= 33)]} for i, row in enumerate(rows(12))]
    recipe = replace(
        classify_text(), part="part", training=replace(classify_text().training, steps=25, validate_every=25)
    )
    run = fit("classify-text", recipe, tmp_path / "run", [written(tmp_path / "t.jsonl", table)], say=lambda text: None)
    assert {part: len(held) for part, held in run.records().items()} == {"train": 30, "validation": 3, "test": 3}
    again = Run.open(run.folder)
    new = written(tmp_path / "n.jsonl", [{"text": text} for text in SAID.values()])
    found = predict(again, [new])
    assert list(found) == ["record", "time_s", "label", "p(de)", "p(en)", "p(fr)"]
    assert found["label"].tolist() == list(SAID)
    out = io.StringIO()
    follow((json.dumps({"text": text}) + "\n" for text in SAID.values()), again.steps.row_by_row(again.model()), out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    np.testing.assert_allclose([a["p(de)"] for a in answers], found["p(de)"], rtol=1e-4)
    assert ClassifyText().speaker(again).say(SAID["fr"])["text"].startswith("fr ")
    with pytest.raises(UserError, match="needs a 'text'"):
        follow(['{"txt": "a"}\n'], again.steps.row_by_row(again.model()), io.StringIO())
