"""Text to numbers and back: characters, words or subwords, learned from the training text and kept as JSON.

Every vocabulary begins with the same four marks. All of them give back the text they were given, as far as they know
its pieces: a space belongs to the word after it. Subwords alone lose one space at the very beginning, which they add
to a text that has none.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import inf
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..config import Spec, from_json, to_json
from ..errors import UserError
from ..json_types import JsonObject
from .symbols import SIGN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BEGIN, END, UNKNOWN = range(4)
"""Numbers of the marks: padding, where a text begins and ends, and what the vocabulary does not hold."""
MARKS = ("<pad>", "<begin>", "<end>", "<unknown>")
_WORD = re.compile(r" ?\w+| ?[^\w\s]|\s")


Kind = TypeVar("Kind", bound="Text")


class Vocabulary(Generic[Kind]):
    """What every vocabulary offers; it is only made of a text or read from JSON."""

    spec: Kind

    def __len__(self) -> int:
        """Marks included."""
        raise AssertionError(f"{type(self).__name__} has no length")

    def encode(self, text: str) -> list[int]:
        """The numbers of its pieces, without marks of begin and end."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        raise AssertionError(f"{type(self).__name__} has no encode_all")

    def decode(self, numbers: Iterable[int]) -> str:
        """The text up to the end mark; other marks are left out, but for what is unknown."""
        raise AssertionError(f"{type(self).__name__} has no decode")

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        """Each piece as a person reads it."""
        raise AssertionError(f"{type(self).__name__} has no pieces")

    def data(self) -> object:
        """What has been learned, for JSON."""
        raise AssertionError(f"{type(self).__name__} has no data")

    def prepared(self, text: str) -> str:
        return text.lower() if self.spec.lower else text

    def to_json(self) -> JsonObject:
        return {"spec": to_json(self.spec), "data": self.data()}


@dataclass(frozen=True)
class Text(Spec):
    """What the vocabularies have in common."""

    size: int = 8000
    """Most pieces, marks included: the commonest are kept."""
    min_count: int = 2
    """How often the training text must hold a piece (of subwords: a pair that is merged)."""
    lower: bool = False
    """Whether all is made lower-case first."""

    BOUNDS = {"size": (5, inf), "min_count": (1, inf)}

    def learn(self, texts: Iterable[str]) -> Vocabulary:
        """The vocabulary of these texts. UserError where nothing is above the minimum count."""
        raise AssertionError(f"{type(self).__name__} learns nothing")

    def restored(self, data: Any) -> Vocabulary:
        """The vocabulary made of what `Vocabulary.data` gave."""
        raise AssertionError(f"{type(self).__name__} can't be restored")


def vocabulary_from_json(data: object, where: str = "vocabulary") -> Vocabulary:
    """What `Vocabulary.to_json` wrote. UserError where it is anything else."""
    if not isinstance(data, dict) or data.keys() != {"spec", "data"}:
        raise UserError(f"{where}: expected an object with `spec` and `data`; it is damaged")
    spec = from_json(data["spec"], where)
    if not isinstance(spec, Text):
        raise UserError(f"{where}: {type(spec).__name__} is not a vocabulary")
    try:
        return spec.restored(data["data"])
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # The tokenizers library raises bare Exceptions, and panics.
        raise UserError(f"{where}: it is damaged ({str(error)[:80]})") from error


@dataclass(frozen=True)
class Characters(Text):
    """Every character is a piece."""

    size: int = 1000

    def learn(self, texts: Iterable[str]) -> "Listed":
        return _most_common(self, Counter(c for text in texts for c in _lowered(self, text)))

    def restored(self, data: Any) -> "Listed":
        return Listed(self, data)

    def split(self, text: str) -> list[str]:
        return list(text)

    def join(self, pieces: Sequence[str]) -> str:
        return "".join(pieces)


@dataclass(frozen=True)
class Words(Text):
    """Words and signs, each with the space before it."""

    def learn(self, texts: Iterable[str]) -> "Listed":
        return _most_common(self, Counter(w for text in texts for w in self.split(_lowered(self, text))))

    def restored(self, data: Any) -> "Listed":
        return Listed(self, data)

    def split(self, text: str) -> list[str]:
        return _WORD.findall(" " + text)  # So that the first word is like any other.

    def join(self, pieces: Sequence[str]) -> str:
        return "".join(pieces).removeprefix(" ")


class Listed(Vocabulary[Characters | Words]):
    """A list of pieces: whatever is not in it is unknown."""

    def __init__(self, spec: Characters | Words, pieces: Sequence[str]):
        if not all(isinstance(piece, str) for piece in pieces) or len(set(pieces)) < len(pieces):
            raise UserError("vocabulary: expected a list of different texts; it is damaged")
        self.spec, self.known = spec, [*MARKS, *pieces]
        self.numbers = {piece: len(MARKS) + i for i, piece in enumerate(pieces)}

    def __len__(self) -> int:
        return len(self.known)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        get = self.numbers.get
        return [[get(piece, UNKNOWN) for piece in self.spec.split(self.prepared(text))] for text in texts]

    def decode(self, numbers: Iterable[int]) -> str:
        return self.spec.join([self._shown(n) for n in _to_end(numbers)])

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        return [self.known[n].strip() or self.known[n] for n in numbers]

    def data(self) -> list[str]:
        return self.known[len(MARKS) :]

    def _shown(self, number: int) -> str:
        lead = " " if isinstance(self.spec, Words) else ""
        return lead + SIGN if number == UNKNOWN else self.known[number]


@dataclass(frozen=True)
class Subwords(Text):
    """Pieces of words, the commonest neighbours merged first (Sennrich et al. 2016), down to single bytes.

    Nothing is unknown to it. Trained by the library `tokenizers`.
    """

    size: int = 5000

    def learn(self, texts: Iterable[str]) -> "Merged":
        library = _tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
        trainer = library.trainers.BpeTrainer(
            vocab_size=max(self.size - len(MARKS), len(alphabet)), min_frequency=self.min_count,
            initial_alphabet=alphabet, show_progress=False,
        )  # fmt: skip
        tokenizer.train_from_iterator([_lowered(self, text) for text in texts], trainer)
        if tokenizer.get_vocab_size() <= len(alphabet):
            raise UserError(_nothing_left(self, "pair of neighbours"))
        return Merged(self, tokenizer)

    def restored(self, data: Any) -> "Merged":
        if any(data["model"].get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")):
            raise UserError("the vocabulary marks parts of words as no vocabulary here does; it is damaged")  # A panic.
        return Merged(self, _tokenizers().Tokenizer.from_str(json.dumps(data)))


class Merged(Vocabulary[Subwords]):
    """Byte pairs; the numbers of `tokenizers`, moved up by the marks."""

    def __init__(self, spec: Subwords, tokenizer: "Tokenizer"):
        self.spec, self.tokenizer = spec, tokenizer

    def __len__(self) -> int:
        return len(MARKS) + self.tokenizer.get_vocab_size()

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        found = self.tokenizer.encode_batch([self.prepared(text) for text in texts])
        return [[len(MARKS) + n for n in one.ids] for one in found]

    def decode(self, numbers: Iterable[int]) -> str:
        text = self.tokenizer.decode([n - len(MARKS) for n in _to_end(numbers) if n >= len(MARKS)])
        return text.removeprefix(" ")

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        return [self._piece(n) for n in numbers]

    def data(self) -> JsonObject:
        return json.loads(self.tokenizer.to_str())

    def encode_dropped(self, text: str, dropout: float, chance: random.Random) -> list[int]:
        """Numbers as of `encode`, each merge left out by that chance: BPE-dropout (Provilkov et al. 2020, section 3).

        The library's own has no seed, and a resumed training has to see what it would have seen.
        """
        words = self.tokenizer.pre_tokenizer.pre_tokenize_str(self.prepared(text))
        return [len(MARKS) + n for word, _ in words for n in self._merged(word, dropout, chance)]

    @cached_property
    def _merges(self) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        """The numbers of the pieces, and the order in which neighbours are merged."""
        model = self.data()["model"]
        return model["vocab"], {tuple(pair): rank for rank, pair in enumerate(model["merges"])}

    def _merged(self, word: str, dropout: float, chance: random.Random) -> Iterator[int]:
        numbers, ranks = self._merges
        pieces: list[str] = list(word)  # A piece stands where it begins; where it was merged into is an empty one.
        after, before = list(range(1, len(pieces) + 1)), list(range(-1, len(pieces) - 1))
        queue = [(ranks[pair], i, *pair) for i, pair in enumerate(pairwise(pieces)) if pair in ranks]
        heapify(queue)
        left_out = []
        while queue:
            _, i, left, right = merge = heappop(queue)
            j = after[i]
            if pieces[i] != left or j == len(pieces) or pieces[j] != right:
                continue
            if chance.random() < dropout:
                left_out.append(merge)
                continue
            pieces[i], pieces[j], after[i] = left + right, "", after[j]
            if after[i] < len(pieces):
                before[after[i]] = i
            for first in (before[i], i):
                second = after[first] if first >= 0 else len(pieces)
                if second < len(pieces) and (rank := ranks.get(pair := (pieces[first], pieces[second]))) is not None:
                    heappush(queue, (rank, first, *pair))
            while left_out:  # Each merge draws anew for what could come next.
                heappush(queue, left_out.pop())
        return (numbers[piece] for piece in pieces if piece)

    def _piece(self, number: int) -> str:
        if number < len(MARKS):
            return MARKS[number]
        text = self.tokenizer.decode([number - len(MARKS)])
        return text[1:] if text.startswith(" ") and len(text) > 1 else f"-{text}"  # It goes on the word before.


def _most_common(spec: Characters | Words, counts: Counter[str]) -> Listed:
    common = sorted((p for p, n in counts.items() if n >= spec.min_count), key=lambda piece: (-counts[piece], piece))
    if not common:
        raise UserError(_nothing_left(spec, "character" if isinstance(spec, Characters) else "word"))
    return Listed(spec, common[: spec.size - len(MARKS)])


def _nothing_left(spec: Text, what: str) -> str:
    return (
        f"vocabulary: no {what} occurs {spec.min_count} times in the training text, so nothing is left; "
        "give more text, or lower --vocabularies.min-count"
    )


def _lowered(spec: Text, text: str) -> str:
    return text.lower() if spec.lower else text


def _to_end(numbers: Iterable[int]) -> Iterable[int]:
    for number in numbers:
        if number == END:
            return
        if number not in (PAD, BEGIN):
            yield number


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise UserError(
            'subwords need the library tokenizers, which is not installed; run: pip install "steersman[text]", '
            "or take whole words: --vocabularies.pieces words"
        ) from None
    return tokenizers
