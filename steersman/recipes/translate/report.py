"""Page of a translator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...evaluation.outcome import best_first
from ...evaluation.page import Fact, Plot, Section, Table
from ...evaluation.plots import TRUTH, draw
from ...json_types import JsonMapping
from .attention import AttentionPicture, unrolled
from .translator import AttentionTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAREST = "translation of the nearest training sentence"


def score_curve(log: Sequence[Mapping[str, float]]) -> Plot:
    """BLEU of the validation pairs over training; of the log's `validation`, which is what is missing to 100."""
    looks = {row["step"]: 100 - row["validation"] for row in log if row.get("validation") is not None}

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        axes.plot(list(looks), list(looks.values()), color=TRUTH, marker="D", markersize=4)
        axes.set_ylim(0, None)
        axes.set_xlabel("training step")
        axes.set_title("BLEU")

    return draw("BLEU of greedy translations of validation pairs; the best weights are kept.", paint, 240)


def translation_summary(scores: JsonMapping) -> str:
    """The outcome in a sentence."""
    nearest = scores["baselines"][NEAREST]
    return (
        f"Of {scores['pairs']:,} pairs ({scores['data']}) it translates with a BLEU of {scores['bleu']:.1f}; the "
        f"translation of the most similar training sentence would get {nearest['bleu']:.1f}."
    )


def translation_facts(scores: JsonMapping) -> list[Fact]:
    """The figures at the top."""
    plain, width = scores["baselines"]["greedy"], scores["beam_width"]
    return [
        Fact("BLEU", f"{scores['bleu']:.1f}", f"beam of {width}"),
        Fact("Greedy", f"{plain['bleu']:.1f}", "the likeliest piece at every step"),
        Fact("chrF", f"{scores['chrf']:.1f}", "by characters"),
        Fact("CPU seconds", f"{scores['cpu_seconds']:.1f}", f"for all {scores['pairs']:,}, beam of {width}"),
    ]


def translation_sections(
    scores: JsonMapping, log: Sequence[Mapping[str, float]], tables: Sequence[AttentionTable]
) -> list[Section]:
    """Baselines, score by length, examples, where it looked, and the score while training."""
    rows = {"this run": scores, **scores["baselines"]}
    order = best_first({name: row["bleu"] for name, row in rows.items()}, higher_is_better=True)
    table = [[name, rows[name]["bleu"], rows[name]["chrf"]] for name in order]
    lengths = [
        [
            f"{r['from']} to {r['to']}" if r["to"] < 10**6 else f"{r['from']} and more",
            r["pairs"],
            r["beam"],
            r["greedy"],
        ]
        for r in scores["by_length"]
    ]
    examples = [[e["source"], e["said"], e["truth"]] for e in scores["examples"]]
    beside = (
        "BLEU counts pieces of one to four words that the reference holds too (0 to 100); chrF does so by characters."
    )
    sections = [
        Section(
            "Beside what needs no model",
            beside,
            [Table(("", "BLEU", "chrF"), table, scores["note"], strong=[order.index("this run")])],
        ),
        Section(
            "By length",
            "BLEU by the words of the source: a short memory fails on long sentences.",
            [Table(("words", "pairs", f"beam {scores['beam_width']}", "greedy"), lengths)],
        ),
        Section("Examples", "The first pairs, as they come.", [Table(("source", "said", "reference"), examples)]),
    ]
    if tables:
        text = "What it looked at while it said each piece, in hundredths; each row sums to 100."
        pictures = [AttentionPicture(one, " ".join(one.source)) for one in tables]
        sections.append(Section("Attention", text, [unrolled(tables[0]), *pictures]))
    if any(row.get("validation") is not None for row in log):
        sections.append(Section("Score while training", "What early stopping looks at.", [score_curve(log)]))
    return sections
