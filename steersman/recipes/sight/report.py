"""Page of what is said about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.pairs import Pair
from ...data.records import Record, text_of
from ...evaluation.outcome import Told, best_first
from ...evaluation.page import Fact, Pictures, Section, Table
from ...evaluation.sections import percent
from ...json_types import JsonMapping
from ...nn.picture_sources import cells_of
from ...sources.told_pictures import PICTURE, QUESTION
from .telling import Said, looked

if TYPE_CHECKING:
    from ...nn.encoder_decoder import EncoderDecoder


@dataclass(frozen=True)
class Shown:
    """A picture that stands on the page."""

    record: Record
    pair: Pair
    said: Said
    truths: Sequence[str]


MOST_FRAMES = 6
"""Frames of a film that are shown, in rows."""
ROW = 3
"""Frames in a row."""
LOOKED = 4
"""Pictures on which it is shown where the model looked."""
LARGE = 160
"""Pixels of the longer side of a picture on the page, about."""


def answers_told(scores: JsonMapping, model: EncoderDecoder, shown: Sequence[Shown]) -> Told:
    """Summary, figures and sections of answers."""
    names = list(scores["baselines"])
    best = max((scores["baselines"][name]["accuracy"], name) for name in names)
    summary = (
        f"{percent(scores['accuracy'])} of {scores['records']:,} texts are said word for word as they should be "
        f"({scores['data']}); {best[1]}: {percent(best[0])}."
    )
    facts = [
        Fact("Right", percent(scores["accuracy"]), f"{best[1]}: {percent(best[0])}"),
        *(Fact(kind.capitalize(), percent(share), "right") for kind, share in scores["by_kind"].items()),
        Fact("CPU seconds", f"{scores['cpu_seconds']:.1f}", f"for all {scores['records']:,}"),
    ]
    captions = [f"{_asked(one.record)}{one.said.text or '(nothing)'}{_truth(one)}" for one in shown]
    sections = [
        _beside(scores, ("accuracy",), ("right",)),
        Section(
            "What it says",
            "From all over the test; up to half are such as it is wrong about. A film is read row by row.",
            [Pictures([_picture(one.record) for one in shown], captions)],
        ),
    ]
    return summary, facts, sections + _looks(model, shown)


def captions_told(scores: JsonMapping, model: EncoderDecoder, shown: Sequence[Shown]) -> Told:
    """Summary, figures and sections of captions."""
    near = scores["baselines"]["caption of the nearest training picture"]
    summary = (
        f"Of {scores['pictures']:,} pictures never seen ({scores['data']}) it tells with a CIDEr-D of "
        f"{scores['cider']:.3f} and a BLEU-4 of {scores['bleu4']:.1f}; the caption of the most similar training "
        f"picture would get {near['cider']:.3f} and {near['bleu4']:.1f}."
    )
    facts = [
        Fact("CIDEr-D", f"{scores['cider']:.3f}", f"nearest picture: {near['cider']:.3f}; 0 to 10"),
        Fact("BLEU-4", f"{scores['bleu4']:.1f}", f"nearest picture: {near['bleu4']:.1f}"),
        Fact("Novel", percent(scores["novel"]), "captions that no training picture has"),
    ]
    captions = [f"{one.said.text} / a person: {one.truths[0]}" for one in shown]
    columns = ("cider", "bleu1", "bleu2", "bleu3", "bleu4", "novel")
    sections = [
        _beside(scores, columns, ("CIDEr-D", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "novel")),
        Section(
            "What it says",
            "The first pictures of the test, as they come, each with what the model says and one true caption.",
            [Pictures([_picture(one.record) for one in shown], captions)],
        ),
    ]
    return summary, facts, sections + _looks(model, shown)


def _beside(scores: JsonMapping, columns: Sequence[str], heads: Sequence[str]) -> Section:
    rows = {"this run": scores, **scores["baselines"]}
    order = best_first({name: row[columns[0]] for name, row in rows.items()}, higher_is_better=True)
    table = [[name, *(rows[name][column] for column in columns)] for name in order]
    text = "The same pictures, by what needs no model, and by other runs."
    note = scores.get("note", "")
    return Section("Beside others", text, [Table(("", *heads), table, note, strong=[order.index("this run")])])


def _looks(model: EncoderDecoder, shown: Sequence[Shown]) -> list[Section]:
    """Where it looked while it said each piece, of a model that looks at parts of a picture."""
    if cells_of(model.encoder) is None or model.decoder.look is None:
        return []
    blocks = []
    for one in shown[:LOOKED]:
        names, maps = looked(model, one.pair, one.said.tokens)
        picture = _picture(one.record)
        pictures = [lit(picture, weights) for weights in maps]
        blocks.append(Pictures([picture, *pictures], [f"{_asked(one.record)}{one.said.text}", *names]))
    return [Section("Where it looked", "Brighter: more weight. Each map sums to 1.", blocks)]


def lit(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture (row column 3), dark where weights (row column of a grid) are small."""
    height, width = picture.shape[:2]
    rows = np.arange(height) * len(weights) // height
    columns = np.arange(width) * weights.shape[1] // width
    share = (weights / max(weights.max(), 1e-9))[rows[:, None], columns]
    return (picture * (0.15 + 0.85 * share[..., None])).astype(np.uint8)


def _picture(record: Record) -> np.ndarray:
    """A record's picture, enlarged or made smaller by whole pixels; of a film some frames."""
    values: Any = record[PICTURE].values
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_FRAMES)).astype(int))
    frames = [np.asarray(values[int(place)]) for place in places]
    height, width = frames[0].shape[:2]
    edge, columns = 2 * (len(frames) > 1), min(ROW, len(frames))
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * (height + edge) - edge, columns * (width + edge) - edge, 3), 128, np.uint8)
    for place, frame in enumerate(frames):
        top, left = (at * (size + edge) for at, size in zip(divmod(place, columns), (height, width), strict=True))
        sheet[top : top + height, left : left + width] = frame
    side = max(sheet.shape[:2])
    if side > LARGE:
        return sheet[:: -(-side // LARGE), :: -(-side // LARGE)]
    return sheet.repeat(LARGE // side, 0).repeat(LARGE // side, 1)


def _asked(record: Record) -> str:
    return f"{text_of(record[QUESTION])} " if QUESTION in record.streams else ""


def _truth(one: Shown) -> str:
    return "" if one.said.text == one.truths[0] else f" (it is: {one.truths[0]})"
