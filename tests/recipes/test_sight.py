"""Answers, captions and films: their sources, their scores, and the command that tells of a picture."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import fitted, small

from steersman.__main__ import main
from steersman.data.records import Record, Stream, text_of
from steersman.data.splits import PART, Split
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.evaluation.sequences import bleus, cider
from steersman.sources import moving_digits, told_pictures
from steersman.sources.moving_digits import APART, MovingDigits
from steersman.sources.told_pictures import read


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for shade, name in enumerate(names):
        Image.fromarray(np.full((8, 10, 3), 20 * shade, np.uint8)).save(folder / name)
    return folder


def test_cider_of_hand_counted_captions():
    truths = [["a red dog runs"], ["a blue cat"]]
    # n-grams held by one of two sets weigh log 2, those of both 0; four orders, of which the second text has three.
    assert cider(["a red dog runs", "a blue cat"], truths) == pytest.approx([10, 7.5])
    assert cider(["blue", "a"], truths)[0] == 0
    # "red dog": of red, dog, runs two are said; of the pairs one of three; no longer ones; two words fewer.
    expected = 10 / 4 * math.exp(-(2**2) / 72) * (2 / math.sqrt(2 * 3) + 1 / math.sqrt(1 * 3))
    assert cider(["red dog", "x"], truths)[0] == pytest.approx(expected)
    # What is said too often counts no more than it is true.
    twice = cider(["red red dog", "x"], truths)[0]
    assert twice < cider(["red dog runs", "x"], truths)[0]


def test_bleu_by_its_orders_beside_several_truths():
    found = bleus(["the cat sat", "a dog"], [["the cat sat", "a cat sat"], ["A dog"]])
    assert found["bleu1"] == pytest.approx(100)
    assert found["bleu1"] >= found["bleu2"] >= found["bleu3"]


def test_captions_in_every_form_are_the_same_records(tmp_path):
    folder = pictures(tmp_path / "images", "a.png", "b.png")
    lines = [("a.png", "A dog, running."), ("a.png", "a dog"), ("b.png", "a cat")]
    with open(tmp_path / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *lines])
    (tmp_path / "captions.txt").write_text("image,caption\na.png,A dog, running.\na.png,a dog\nb.png,a cat\n")
    tokens = "".join(f"{name}#{i}\t{text}\n" for i, (name, text) in enumerate(lines))
    (tmp_path / "Flickr8k.token.txt").write_text(tokens)
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(("a.png", "b.png"))],
        "annotations": [{"image_id": int(name == "b.png"), "caption": text} for name, text in lines],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    for name in ("captions.csv", "captions.txt", "Flickr8k.token.txt", "captions.json"):
        found = read(tmp_path / name)
        assert [text_of(record["target"]) for record in found] == [text for _, text in lines]
        assert found[0]["picture"].values is found[1]["picture"].values
        assert found[2]["picture"].values[:].shape == (1, 8, 10, 3)
    assert [text_of(r["target"]) for r in read(tmp_path)] == [text for _, text in lines]
    assert folder.exists()


def test_what_can_not_be_told_is_counted_and_said(tmp_path):
    pictures(tmp_path / "images", "a.png", "b.png", "mute.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    rows = ["image,question,answer", "a.png,what is it?,a dog", "gone.png,what?,a cat", "b.png,what is it?,",
            "broken.png,what?,no", "../../etc/passwd,what?,no"]  # fmt: skip
    (tmp_path / "questions.csv").write_text("\n".join(rows))
    (record,) = read(tmp_path / "questions.csv")
    assert text_of(record["question"]) == "what is it?"
    assert record.about["num_faults"] == 5
    said = "\n".join(record.about["faults"])
    for part in ("no picture gone.png", "b.png has no text", "broken.png", "no name of a picture", "mute.png has no"):
        assert part in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.csv", "", "is empty"),
        ("c.csv", "a,b\n1,2\n", "name a column of pictures"),
        ("c.csv", "image,caption\nnowhere.png,a dog\n", "tells of no picture that is there"),
        ("c.json", "{}", "is no file of captions"),
        ("c.json", "[[[", "is no file of captions"),
        ("c.csv", "image,question,answer\na.png,,yes\na.png,what?,no\n", "has no question, others have"),
    ],
)
def test_files_that_tell_of_no_picture_are_refused(tmp_path, name, text, said):
    pictures(tmp_path, "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / name)


def test_records_are_divided_as_they_tell():
    def made(part: str) -> Record:
        return Record(f"of {part}", {"x": Stream(np.zeros(2), np.arange(2.0))}, {PART: part} if part else {})

    parts = Split(by="part").divide([made(p) for p in ("train", "val", "test", "train")])
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [2, 1, 1]
    drawn = Split(by="part", validation=0.25).divide([made("train")] * 8 + [made("test")])
    assert [len(drawn[name]) for name in ("train", "validation", "test")] == [6, 2, 1]
    with pytest.raises(UserError, match="tells of no part"):
        Split(by="part").divide([made("train"), made("")])
    with pytest.raises(UserError, match="belongs to test"):
        Split(by="part").divide([made("train")])


def test_records_of_one_scene_fall_into_one_part():
    records = [
        Record(f"{scene}-{i}", {"x": Stream(np.zeros(2), np.arange(2.0))}, {"scene": scene})
        for scene in range(10)
        for i in range(3)
    ]
    parts = Split(validation=0.2, test=0.3, together="scene").divide(records)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [15, 6, 9]
    scenes = [{record.about["scene"] for record in part} for part in parts.values()]
    assert not scenes[0] & scenes[1] | scenes[0] & scenes[2] | scenes[1] & scenes[2]


def digit_records() -> list[Record]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(60):
        picture = np.zeros((1, 28, 28), np.uint8)
        picture[0, 8:20, 8:20] = rng.integers(100, 255)
        streams = {
            "picture": Stream(picture, np.zeros(1)),
            "label": Stream(np.array([str(number % 10)], object), np.zeros(1)),
        }
        made.append(Record(f"digit-{number}", streams))
    return made


def test_films_move_as_their_sentences_say(monkeypatch):
    monkeypatch.setattr(moving_digits.Pictures, "read", lambda self, watch=None: digit_records())
    films = MovingDigits(films=40, test=10, frames=5).read()
    assert [sum(f.about[PART] == part for f in films) for part in ("train", "validation", "test")] == [40, 20, 30]
    for film in films:
        words = text_of(film["target"]).split()
        digits = [int(words[i + 1]) for i, word in enumerate(words) if word == "digit"]
        never = film.about["kind"] == "pair never seen"
        assert (tuple(digits) in APART) == never
        if len(digits) == 1:
            seen = np.asarray(film["picture"].values)[..., 0].astype(float)
            rows, columns = (seen.sum(axis) @ np.arange(40) / seen.sum((1, 2)) for axis in (2, 1))
            way = {"left": -columns, "right": columns, "up": -rows, "down": rows}[words[4]]
            turned = (np.diff(way) < 0).any()
            assert turned == ("back" in words)
            assert turned or (np.diff(way) > 0).all()


def test_a_digit_that_lacks_is_named(monkeypatch):
    monkeypatch.setattr(moving_digits.Pictures, "read", lambda self, watch=None: digit_records()[:9])
    with pytest.raises(UserError, match="no picture of the digit"):
        MovingDigits().read()


def test_a_run_is_scored_and_told_of_from_the_command_line(tmp_path, capsys):
    run = fitted("caption", tmp_path / "run")
    scores = report_run(run)
    assert set(scores["columns"]) <= scores.keys()
    assert {"the commonest caption", "caption of the nearest training picture"} <= scores["baselines"].keys()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Where it looked" in page
    picture = str(pictures(tmp_path / "p", "a.png") / "a.png")
    capsys.readouterr()
    main(["tell", str(tmp_path / "run"), picture, picture, "--attention", str(tmp_path / "looked.html")])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[0] == said[1]
    assert "Where it looked" in (tmp_path / "looked.html").read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "name a file of a picture"),
        (["gone.png"], "there is no picture gone.png"),
        (["--question", "what?", "x"], "reads no question"),
        (["x", "--attention", "a.txt"], r"written as .html"),
    ],
)
def test_what_can_not_be_told_of_is_said(tmp_path_factory, capsys, given, said):
    folder = tmp_path_factory.getbasetemp() / "told-run"
    if not folder.exists():
        fitted("caption", folder)
    with pytest.raises(SystemExit) as stopped:
        main(["tell", str(folder), *given])
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_questions_are_answered_and_counted_beside_guesses(tmp_path):
    run = fitted("vqa", tmp_path / "run")
    scores = report_run(run)
    assert scores["baselines"].keys() == {"the commonest answer", "the commonest answer to the question"}
    assert scores["baselines"]["the commonest answer to the question"]["accuracy"] <= 1
    assert small("vqa").encoder.sources == ("picture", "question")


def test_without_the_package_of_questions_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "easy_vqa", None)
    with pytest.raises(UserError, match=r"steersman\[sight\]"):
        told_pictures.EasyVqa().read()
