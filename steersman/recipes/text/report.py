"""Page of a text model."""

from ...evaluation.outcome import best_first
from ...evaluation.page import (
    MINUS,
    Coloured,
    Fact,
    Section,
    Table,
)
from ...evaluation.sections import percent
from ...json_types import JsonMapping
from .reading import Reading


def text_summary(scores: JsonMapping) -> str:
    """The outcome in two sentences."""
    summary = (
        f"Over {scores['items']:,} symbols that it never trained on, read in one pass with its state carried, "
        f"the model needs {scores['bits']:.3f} bits a symbol; the compressor xz, told the training text, needs "
        f"{scores['baselines']['xz']['bits']:.3f}."
    )
    if scores["unknown"]:
        summary += f" {scores['unknown']:,} of the symbols are none that it knows, and count as one."
    return summary


def text_facts(scores: JsonMapping) -> list[Fact]:
    """The figures at the top."""
    pairs = scores["baselines"]["pairs"]
    return [
        Fact("Nats a symbol", f"{scores['nats']:.3f}", f"pairs of symbols: {pairs['nats']:.3f}"),
        Fact("Bits a symbol", f"{scores['bits']:.3f}", f"xz: {scores['baselines']['xz']['bits']:.3f}"),
        Fact("Bits a byte", f"{scores['bits_per_byte']:.3f}", "of the text in UTF-8, whatever the symbols are"),
        Fact("Foretold rightly", percent(scores["accuracy"]), f"pairs of symbols: {percent(pairs['accuracy'])}"),
        Fact("Symbols", f"{scores['items']:,}", f"{len(scores['names'])} classes"),
    ]


def text_sections(scores: JsonMapping, reading: Reading) -> list[Section]:
    """Scores beside the baselines, and what the model did while it read."""
    rows = {"this run": scores, **scores["baselines"]}
    order = best_first({name: row["bits_per_byte"] for name, row in rows.items()}, higher_is_better=False)
    columns = ("", "bits a byte", "nats", "bits", "foretold rightly")
    table = [[name, *(rows[name][k] for k in ("bits_per_byte", "nats", "bits", "accuracy"))] for name in order]
    beside = Section(
        "Beside the baselines",
        "Frequencies of symbols, and of pairs of them, in the training text, and a compressor that was told that text. "
        "Bits a byte of UTF-8 compare models of any alphabet; nats and bits are those of a symbol.",
        [Table(columns, table, strong=[order.index("this run")])],
    )
    return [beside, *reading_sections(reading)]


def reading_sections(reading: Reading) -> list[Section]:
    """The passage by surprise, and by the cells that track something."""
    sections = [
        Section(
            "What surprised it",
            "The beginning of the text it was tested on. The deeper a character is coloured the less it was expected.",
            [Coloured(reading.characters, list(reading.nats / 6), "Nats a character; the deepest: 6 and more.")],
        )
    ]
    if reading.cells:
        shown = [
            Coloured(
                reading.characters,
                list(cell.values),
                f"Unit {cell.unit}: {cell.tracks}, correlation {cell.correlation:.2f}.".replace("-", MINUS),
            )
            for cell in reading.cells[:3]
        ]
        rows = [[cell.tracks, cell.unit, cell.correlation] for cell in reading.cells]
        text = (
            "Outputs of the core that go along with something a reader keeps in mind. Each unit was chosen on one half "
            "of a stretch of text; its correlation is that on the other half."
        )
        sections.append(Section("Cells", text, [Table(("tracks", "unit", "correlation"), rows), *shown]))
    return sections
