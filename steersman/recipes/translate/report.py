"""Page of a translator."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ...config import to_json
from ...evaluation.page import Fact, Plot, Report, Section, Table, write_report
from ...evaluation.plots import TRUTH, draw
from ...evaluation.sections import run_sections
from ...progress import Watch, silent
from ...training.checkpoints import write_json
from ...training.run import Run
from ...training.trainer import read_log
from .attention import Looks, has_attention, unrolled
from .recipe import Scores
from .task import score
from .translator import Attention


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


def translation_report(
    title: str,
    scores: Scores,
    log: Sequence[Mapping[str, float]],
    config: Mapping[str, Any],
    looks: Sequence[Attention],
) -> Report:
    """Of translation.score, the training log's rows and the run's config."""
    nearest = scores["baselines"]["translation of the nearest training sentence"]
    plain = scores["baselines"]["greedy"]
    summary = (
        f"Of {scores['pairs']:,} {scores['data']} it translates with a BLEU of {scores['bleu']:.1f}; the translation "
        f"of the most similar training sentence would get {nearest['bleu']:.1f}."
    )
    facts = [
        Fact("BLEU", f"{scores['bleu']:.1f}", f"beam of {scores['beam']}"),
        Fact("Greedy", f"{plain['bleu']:.1f}", "the likeliest piece at every step"),
        Fact("chrF", f"{scores['chrf']:.1f}", "by characters"),
        Fact("CPU seconds", f"{scores['cpu_seconds']:.1f}", f"for all {scores['pairs']:,}, beam of {scores['beam']}"),
    ]
    rows = [[f"this run, beam {scores['beam']}", scores["bleu"], scores["chrf"]]]
    rows += [[name, row["bleu"], row["chrf"]] for name, row in scores["baselines"].items()]
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
            "Beside what needs no model", beside, [Table(("", "BLEU", "chrF"), rows, scores["signature"], strong=[0])]
        ),
        Section(
            "By length",
            "BLEU by the words of the source: a short memory fails on long sentences.",
            [Table(("words", "pairs", f"beam {scores['beam']}", "greedy"), lengths)],
        ),
        Section("Examples", "The first pairs, as they come.", [Table(("source", "said", "reference"), examples)]),
    ]
    if looks:
        text = "What it looked at while it said each piece, in hundredths; each row sums to 100."
        tables = [Looks(look, " ".join(look.source)) for look in looks]
        sections.append(Section("Attention", text, [unrolled(looks[0]), *tables]))
    losses = [{k: v for k, v in row.items() if k != "validation"} for row in log]
    training = run_sections(losses, config)
    if log and any("validation" in row for row in log):
        training.insert(1, Section("Score while training", "What early stopping looks at.", [score_curve(log)]))
    return Report(title, summary, facts, [*sections, *training])


def report_translation(run: Run, data: Sequence[str] = (), watch: Watch = silent, folder: Path | None = None) -> Scores:
    """Scores a run, and writes metrics.json and report.html into its folder or another."""
    folder = folder or run.folder
    folder.mkdir(parents=True, exist_ok=True)
    scores, said, model = score(run, data, watch)
    title = f"{run.name}: {run.folder.name}" + (f" on {scores['data']}" if data else "")
    short = sorted((one for one in said if 1 <= len(one.tokens) <= 14), key=lambda one: len(one.tokens))[-3:]
    looks = [model.attention(one.source, one.tokens) for one in short] if has_attention(model) else []
    write_json(folder / "metrics.json", scores)
    told = translation_report(title, scores, read_log(run.folder), to_json(run.recipe), looks)
    write_report(folder / "report.html", told)
    return scores
