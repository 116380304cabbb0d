"""What a model of a text does while it reads: how surprised it is, and which of its cells track something."""

import copy
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from math import log, log2

import numpy as np
import torch
from torch.nn import functional as F

from ...data.examples import Example
from ...data.lazy import PART
from ...data.symbols import SIGN
from ...errors import UserError
from ...evaluation.metrics import Scores, confused, guess_scores
from ...nn.encoders import reads_symbols
from ...nn.heads import NextSymbolHead, tells_symbols
from ...nn.model import Model

CODE_POINTS = 0x110000 - 0x800
"""Characters that Unicode has room for."""
PASSAGE = 1500
"""Characters of the text that are shown."""
LOOKED_AT = 40_000
"""Characters over which cells are looked at: chosen on the first half, judged on the second."""


@dataclass(frozen=True)
class Cell:
    """An output of the core that goes along with something in the text."""

    tracks: str
    unit: int
    correlation: float
    """Correlation on text other than that on which the cell was chosen."""
    values: np.ndarray
    """Values over the passage that is shown."""


@dataclass(frozen=True)
class Reading:
    """A passage, character by character, with the nats each cost, and cells that track something."""

    characters: list[str]
    nats: np.ndarray
    cells: list[Cell]


def text_head(model: Model) -> NextSymbolHead:
    """The head of a model of a text. UserError where the model is of something else."""
    if not tells_symbols(model.head) or not reads_symbols(model.encoder):
        raise UserError("this run is not a model of a text; `steersman train chars` makes one")
    return model.head


def text_scores(
    confusion: np.ndarray,
    nats: float,
    labels: Sequence[np.ndarray],
    counts: np.ndarray,
    names: Sequence[str],
    train: Sequence[np.ndarray],
    num_bytes: int = 0,
) -> Scores:
    """Nats and bits a symbol beside baselines: frequencies, pairs of symbols, and xz told the training text.

    Given are how often each symbol was taken for each, the model's mean nats, the symbols of the texts, and the bytes
    that those told make in UTF-8 (0: one each). Bits a byte are those of a whole code, so that they compare between
    alphabets: a symbol that is not known costs also what tells it from all others that are not.
    """
    scores = guess_scores(confusion, nats, counts, names)
    scores["unknown"] = int(confusion[0].sum()) if names[0] == "unknown" else 0
    scores["baselines"] |= {"pairs": _pairs(labels, len(counts), train), "xz": _xz(labels, train)}
    items = int(confusion.sum())
    named = scores["unknown"] * log2(CODE_POINTS - len(names) + 1)
    for row in (scores, *scores["baselines"].values()):
        row["bits"] = row["nats"] / log(2)
        row["bits_per_byte"] = (row["bits"] * items + named) / (num_bytes or items)
    return {name: value for name, value in scores.items() if name != "confusion"}


MOST_SQUEEZED = 4_000_000
"""Symbols of the beginning of the test, and bytes of the end of the training texts, that xz is given."""


def _pairs(labels: Sequence[np.ndarray], classes: int, train: Sequence[np.ndarray]) -> dict[str, float]:
    """What followed each symbol in training, one added to each count."""
    counts, seen = _followed(train, classes) + 1, _followed(labels, classes)
    chances = counts / counts.sum(1, keepdims=True)
    right = seen[np.arange(classes), counts.argmax(1)].sum()
    return {"accuracy": float(right / seen.sum()), "nats": float(-(seen * np.log(chances)).sum() / seen.sum())}


def _followed(texts: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """How often each symbol (rows) was followed by each (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    for text in texts:
        for start in range(0, len(text) - 1, PART):
            part = text[start : start + PART + 1]
            counts += confused(part[:-1], part[1:], classes)
    return counts


def _xz(labels: Sequence[np.ndarray], train: Sequence[np.ndarray]) -> dict[str, float | None]:
    kind = np.uint8 if max(text.max() for text in (*labels, *train)) < 256 else np.uint16
    known = b"".join(text[-MOST_SQUEEZED:].astype(kind).tobytes() for text in train)[-MOST_SQUEEZED:]
    told = np.concatenate([text[:MOST_SQUEEZED].astype(kind) for text in labels])[:MOST_SQUEEZED]
    more = len(_squeezed(known + told.tobytes())) - len(_squeezed(known))
    return {"accuracy": None, "nats": more * 8 * log(2) / len(told)}


def _squeezed(text: bytes) -> bytes:
    return lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)


def labels_of(head: NextSymbolHead, y: np.ndarray) -> np.ndarray:
    """The classes of a target (step 1) in as few bytes as they need, a part at a time: a text is long."""
    found = np.empty(len(y), np.min_scalar_type(len(head.symbols) - 1))
    for start in range(0, len(y), PART):
        found[start : start + PART] = head.labels(y[start : start + PART, 0])
    return found


def num_bytes(head: NextSymbolHead, examples: Sequence[Example]) -> int:
    """UTF-8 bytes of the symbols that are foretold, a part at a time."""
    if not head.symbols.characters:
        return sum(map(len, examples))
    total = 0
    for example in examples:
        for start in range(0, len(example), PART):
            codes = example.y[start : start + PART, 0]
            total += len(codes) + sum(int((codes >= least).sum()) for least in (0x80, 0x800, 0x10000))
    return total


def count_guesses(model: Model, shown: Sequence[Example]) -> tuple[np.ndarray, float, torch.Tensor]:
    """How often each symbol was taken for each, mean nats, and raw outputs over the passage that is shown."""
    head, total, passage = copy.deepcopy(text_head(model)).cpu(), 0.0, []
    confusion = np.zeros((len(head.symbols), len(head.symbols)), np.int64)
    for place, start, raw in model.streamed(shown):
        end = start + len(raw)
        labels = head.labels(shown[place].y[start:end, 0])
        np.add.at(confusion, (labels, raw.argmax(1).numpy()), 1)
        total += float(F.cross_entropy(raw, torch.from_numpy(labels).long(), reduction="sum"))
        if place == 0 and start < PASSAGE:
            passage.append(raw)
    return confusion, total / sum(map(len, shown)), torch.cat(passage)[:PASSAGE]


@torch.no_grad()
def read_along(model: Model, example: Example, raw: torch.Tensor) -> Reading:
    """What the model did over the beginning of a text, whose raw outputs are given."""
    head = text_head(model)
    x = torch.from_numpy(example.x[None, :LOOKED_AT])
    feature, _ = model.encoder(x, model.encoder.initial(1))
    outputs = model.core(feature, model.core.initial(1))[0][0].float().numpy()
    codes = head.symbols.codes(example.x[:LOOKED_AT, 0])
    shown = min(PASSAGE, len(codes))
    nats = head.loss(raw[:shown], torch.from_numpy(example.y[:shown])).numpy()
    characters = [_shown(chr(code)) for code in codes]
    # What a character cost stands at that character: the first one was not foretold.
    return Reading(characters[:shown], np.concatenate(([0.0], nats[:-1])), cells(outputs, characters, shown))


def _shown(character: str) -> str:
    """What a page can hold: control characters as the pictures that Unicode has of them."""
    code = ord(character)
    return chr(0x2400 + code) if code < 32 and character not in "\n\t" else SIGN if 127 <= code < 160 else character


def cells(outputs: np.ndarray, characters: Sequence[str], shown: int) -> list[Cell]:
    """The unit that goes along most closely with each thing that can be tracked."""
    half, found = len(characters) // 2, []
    for name, values in trackers(characters).items():
        if half < 100 or values[:half].std() == 0 or values[half:].std() == 0:
            continue
        unit = int(np.abs(_correlations(outputs[:half], values[:half])).argmax())
        correlation = float(_correlations(outputs[half:, unit : unit + 1], values[half:])[0])
        found.append(Cell(name, unit, correlation, outputs[:shown, unit]))
    return sorted(found, key=lambda cell: -abs(cell.correlation))


def _correlations(outputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    a, b = outputs - outputs.mean(0), values - values.mean()
    return (a * b[:, None]).mean(0) / np.maximum(a.std(0) * b.std(), 1e-12)


def trackers(characters: Sequence[str]) -> dict[str, np.ndarray]:
    """What a reader keeps in mind, at every character."""
    place, word, quoted, bracketed, rows = 0, 0, False, False, []
    for character in characters:
        place = 0 if character == "\n" else place + 1
        word = word + 1 if character.isalpha() else 0
        quoted = (not quoted if character == '"' else quoted) and character != "\n"
        bracketed = (bracketed or character in "([") and character not in ")]"
        rows.append((place, word, quoted, bracketed, character.isupper(), character.isspace()))
    names = (
        "place in the line",
        "place in the word",
        "inside quotes",
        "inside brackets",
        "in capitals",
        "between words",
    )
    return dict(zip(names, np.array(rows, float).reshape(-1, len(names)).T, strict=True))
