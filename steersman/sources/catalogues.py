"""Gettext catalogues: what programs say, in English and in another language, translated by people.

Found where systems keep them and beside installed Python packages; nothing is downloaded.
"""

import struct
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

from ..data.records import Record
from ..errors import UserError
from ..progress import Watch, silent
from .parallel import PairSource, noted, record

FOLDERS = ("/usr/share", "/usr/local/share", "/opt/homebrew/share", "/opt/local/share")
"""Where systems keep catalogues: in `locale`, and programs of their own in other folders."""
PATTERNS = ("locale*/{}/LC_MESSAGES/*.mo", "*/locale*/{}/LC_MESSAGES/*.mo", "*/*/locale*/{}/LC_MESSAGES/*.mo")
LITTLE, BIG = 0x950412DE, 0xDE120495
LEAST = 200
"""Pairs that a language must have."""
PREFERRED = ("de", "fr", "es", "it", "sv", "pt_BR", "nl", "pl", "ru")
"""Languages in the order in which they are taken, if none is named; then any other."""


@dataclass(frozen=True)
class Catalogues(PairSource):
    """Streams `source` (the other language) and `target` (English), a record a message."""

    language: str = ""
    """Code of the language, such as de; empty: the first of German, French, Spanish... that is found."""
    into_english: bool = True
    """Whether English is the language translated into; else it is translated from."""
    longest: int = 200
    """Most characters of a message; longer ones, and those of several lines, are left out."""
    most: int = 40000
    """Most messages taken."""

    BOUNDS = {"longest": (1, inf), "most": (1, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        for language in (self.language,) if self.language else _languages():
            pairs, lost = self._pairs(language, watch)
            if len(pairs) >= LEAST:
                break
        else:
            what = f"of the language {self.language!r}" if self.language else "of any language"
            raise UserError(
                f"no catalogue {what} with {LEAST} messages was found on this machine (LC_MESSAGES/*.mo below "
                f"{', '.join(FOLDERS)} and Python's packages); give texts: --data SOURCE TARGET"
            )
        made = []
        for number, (english, other) in enumerate(list(pairs.items())[: self.most]):
            source, target = (other, english) if self.into_english else (english, other)
            made.append(record(f"{language}-{number}", source, target))
        return noted(made, lost, "messages (long, of several lines, or the same in both languages)")

    def _pairs(self, language: str, watch: Watch) -> tuple[dict[str, str], list[str]]:
        """Each message once, and each translation: else one could be in training and test."""
        pairs, seen, lost = {}, set(), []
        for path in files(language):
            watch("reading catalogues", len(pairs), max(self.most, len(pairs)), path.name)
            for english, other in read(path):
                if english in pairs or other in seen:
                    continue
                if self._fits(english) and self._fits(other) and english != other:
                    pairs[english] = other
                    seen.add(other)
                else:
                    lost.append(f"{path.name}: {english[:40]!r}")
        return pairs, lost

    def _fits(self, text: str) -> bool:
        return 0 < len(text.strip()) <= self.longest and "\n" not in text.strip()


def files(language: str) -> list[Path]:
    """All catalogues of a language, the larger first; the order is the same every time."""
    places = [Path(folder) for folder in (*FOLDERS, *_packages())]
    found = {path for place in places for pattern in PATTERNS for path in place.glob(pattern.format(language))}
    return sorted(found, key=lambda path: (-path.stat().st_size, str(path)))


def read(path: Path) -> Iterator[tuple[str, str]]:
    """Messages and their translations; a catalogue that is damaged or not UTF-8 gives none.

    Only plain messages: those of one context (a \\x04 in them) or with plurals (a \\0) are left out.
    """
    try:
        data = path.read_bytes()
        order = {LITTLE: "<", BIG: ">"}[struct.unpack_from("<I", data)[0]]
        count, ids, texts = struct.unpack_from(f"{order}3I", data, 8)
        for i in range(count):
            message, text = (_string(data, order, table + 8 * i) for table in (ids, texts))
            if message and text and not {"\0", "\4"} & {*message, *text}:
                yield message.strip(), text.strip()
    except (OSError, KeyError, struct.error, UnicodeDecodeError):
        return


def _string(data: bytes, order: str, place: int) -> str:
    length, start = struct.unpack_from(f"{order}2I", data, place)
    return data[start : start + length].decode()


def _languages() -> list[str]:
    """Languages of which there is any catalogue, the preferred ones first, then those with most bytes."""
    sizes: dict[str, int] = defaultdict(int)
    for path in files("*"):
        sizes[path.parent.parent.name] += path.stat().st_size
    first = [language for language in PREFERRED if language in sizes]
    rest = sorted(sizes.keys() - set(PREFERRED) - {"en", "en_GB", "en_CA", "en_US"}, key=lambda name: -sizes[name])
    return [*first, *rest]


def _packages() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), f"{sys.prefix}/share"})
