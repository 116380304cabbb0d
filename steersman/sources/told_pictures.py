"""Pictures with texts: questions and their answers, captions; from tables, caption files, and made here.

A record is one text said about one picture: streams `picture` (one step), `question` where there is one, and
`target`, the answer or the caption. Records of one picture share its values.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.frames import Frames
from ..data.records import Record, Stream, Values, text_stream
from ..data.splits import PART
from ..errors import UserError
from ..progress import Watch, silent
from .parallel import decoded, noted, split
from .source import SourceSpec

PICTURE, QUESTION, TARGET = "picture", "question", "target"
IMAGES = ("image", "picture", "file", "filename", "image_name", "img", "path")
"""What columns of pictures' names are called."""
TEXTS = ("caption", "answer", "text", "sentence", "description", "target")
"""What columns of what is said are called."""
FOLDERS = ("", "images", "Images", "pictures", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images", "train2014",
           "val2014", "train2017", "val2017")  # fmt: skip
"""Folders beside a caption file in which its pictures may lie."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
NOW = np.zeros(1)


class Telling(NamedTuple):
    """A line of a caption file."""

    picture: str
    target: str
    question: str = ""
    part: str = ""


def told(name: str, picture: Values, target: str, question: str = "", **about: Any) -> Record:
    """The record of a picture (1 height width 3) or a film, a question about it if there is one, and what is said."""
    clock = NOW if len(picture) == 1 else np.arange(float(len(picture)))
    streams = {PICTURE: Stream(picture, clock), TARGET: text_stream(target)}
    if question:
        streams[QUESTION] = text_stream(question)
    return Record(name, streams, {"format": "pictures with texts", **{k: v for k, v in about.items() if v != ""}})


def read(path: Path) -> list[Record]:
    """A record a text. Texts without a picture, and pictures without a text, are left out, counted and said.

    UserError where it is no file of captions or questions, or none of its pictures is there.
    """
    if path.is_dir():
        path = _listed(path)
    found, faults, known = [], [], {}
    named = set()
    for number, line in enumerate(_parsed(path), 1):
        named.add(Path(line.picture).name)
        if not line.target.strip():
            faults.append(f"line {number}: {line.picture} has no text")
            continue
        if line.picture not in known:
            known[line.picture] = _picture(path.parent, line.picture)
        picture = known[line.picture]
        if isinstance(picture, str):
            faults.append(f"line {number}: {picture}")
            continue
        about = {"scene": line.picture, PART: line.part}
        found.append(told(f"{line.picture}#{number}", picture, line.target.strip(), line.question.strip(), **about))
    beside = {file.parent for one in known.values() if not isinstance(one, str) for file in one.sources}
    mute = sorted(file.name for folder in beside for file in folder.iterdir()
                  if file.suffix.lower() in ENDINGS and file.name not in named)  # fmt: skip
    faults += [f"{name} has no text" for name in mute]
    if not found:
        raise UserError(f"{path} tells of no picture that is there" + (f": {faults[0]}" if faults else ": it is empty"))
    asked = [QUESTION in record.streams for record in found]
    if any(asked) and not all(asked):
        lost = asked.index(False)
        raise UserError(f"{path}: {found[lost].name} has no question, others have; ask one in every line")
    return noted(found, faults, "texts")


def _listed(folder: Path) -> Path:
    """The caption file of a folder."""
    names = ("captions.csv", "captions.txt", "results.csv", "Flickr8k.token.txt", "captions.json", "questions.csv")
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if not found:
        raise UserError(f"{folder} holds no file of captions; one of {', '.join(names)} would be read")
    return found


def _lines(path: Path) -> Iterator[Telling]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error
    text = decoded(data, str(path)).removeprefix("\ufeff")
    if path.suffix == ".json":
        return iter(_from_json(path, text))
    lines = split(text)
    if lines and "#" in lines[0].partition("\t")[0] and "\t" in lines[0]:  # name.jpg#0<tab>caption: Flickr8k, 30k.
        tokens = (line.partition("\t") for line in lines if line.strip())
        return (Telling(name.rpartition("#")[0], said) for name, _, said in tokens)
    return _from_table(path, lines)


def _parsed(path: Path) -> list[Telling]:
    try:
        return list(_lines(path))
    except csv.Error as error:
        raise UserError(f"{path} is no table of captions: {error}") from error


def _from_table(path: Path, lines: list[str]) -> Iterator[Telling]:
    mark = next((sign for sign in ("\t", "|", ";") if sign in lines[0]), ",") if lines else ","
    if not any(line.strip() for line in lines):
        raise UserError(f"{path} is empty")
    rows = csv.reader(lines, delimiter=mark)
    head = [name.strip().lower() for name in next(rows, [])]
    image = next((head.index(name) for name in IMAGES if name in head), -1)
    said = next((head.index(name) for name in TEXTS if name in head), -1)
    if image < 0 or said < 0:
        raise UserError(
            f"{path}: its first line is {lines[0][:80]!r}; name a column of pictures ({', '.join(IMAGES[:3])}) and one "
            f"of texts ({', '.join(TEXTS[:3])})"
        )
    asked, part = (head.index(name) if name in head else -1 for name in (QUESTION, PART))
    for row in rows:
        cells = [*row, *[""] * (len(head) - len(row))]
        if mark == "," and said == len(head) - 1:  # A caption's commas need not be quoted.
            cells[said] = ",".join(cells[said:])
        if any(cells):
            yield Telling(
                cells[image], cells[said], cells[asked] if asked >= 0 else "", cells[part] if part >= 0 else ""
            )


def _from_json(path: Path, text: str) -> list[Telling]:
    """COCO's captions (images, annotations), or a list of pictures each with its captions."""
    try:
        found: Any = json.loads(text)
        if isinstance(found, Mapping):
            names = {image["id"]: str(image["file_name"]) for image in found["images"]}
            return [Telling(names.get(a["image_id"], f"image {a['image_id']}"), str(a["caption"]))
                    for a in found["annotations"]]  # fmt: skip
        return [
            Telling(str(one["file"]), str(caption), part=str(one.get("split", "")))
            for one in found
            for caption in one["captions"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is no file of captions ({type(error).__name__}: {error}); COCO's have `images` and `annotations`"
        ) from error


def _picture(folder: Path, name: str) -> Frames | str:
    """A picture that is decoded when it is asked for; in words, why there is none."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        return f"{name!r} is no name of a picture below {folder}"
    place = next((folder / part / name for part in FOLDERS if (folder / part / name).is_file()), None)
    if place is None:
        return f"there is no picture {name}"
    try:
        return Frames([place])
    except UserError as error:
        return str(error)


@dataclass(frozen=True)
class ToldPictures(SourceSpec):
    """Source of pictures with texts."""

    def read(self, watch: Watch = silent) -> list[Record]:
        raise UserError(
            "this recipe has no pictures of its own; give some: --data captions.csv (columns image and caption, the "
            "pictures beside it), or the caption file of Flickr8k, Flickr30k or COCO"
        )

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        """Files of captions or questions, each with its pictures beside it."""
        return [record for path in data for record in read(Path(path))]


@dataclass(frozen=True)
class EasyVqa(ToldPictures):
    """Questions about coloured shapes, of the package easy-vqa (Zhou 2019), in its own division.

    Every twentieth training picture is kept for validation.
    """

    questions: int = 0
    """Questions of each part that are taken, from its first; 0: all."""

    BOUNDS = {"questions": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        try:
            import easy_vqa
        except ImportError:
            raise UserError(
                'the questions come with easy-vqa, which is not installed; run: pip install "steersman[sight]", or '
                "give questions of your own: --data questions.csv (columns image, question, answer)"
            ) from None
        found = []
        for part in ("train", "test"):
            asked: Any = getattr(easy_vqa, f"get_{part}_questions")()
            paths = getattr(easy_vqa, f"get_{part}_image_paths")()
            pictures: dict[int, np.ndarray] = {}
            rows = list(zip(*asked, strict=True))
            for number, (question, answer, image) in enumerate(rows[: self.questions or None]):
                if image not in pictures:
                    watch("reading pictures", len(found), len(found) + len(rows) - number)
                    pictures[image] = Frames([Path(paths[image])])[:]
                held = "validation" if part == "train" and image % 20 == 0 else part
                about = {"scene": f"{part} {image}", PART: held}
                found.append(told(f"{part}-{number}", pictures[image], answer, question, **about))
        return found
