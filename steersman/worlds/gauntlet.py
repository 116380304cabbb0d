"""The gauntlet: a driver under every disturbance its world knows, beside others under the same."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.table import Table as Printed

from ..errors import UserError
from ..evaluation.metrics import Scores
from ..evaluation.page import Fact, Report, Section, Table
from ..progress import Watch, silent
from .rollout import Episode, drives
from .scores import driving_scores
from .world import Words, WorldSpec

Rows = Mapping[str, Mapping[str, Sequence[Episode]]]
"""Episodes by condition and driver; the first driver is the one that is asked about."""


def run_gauntlet(
    world: WorldSpec, names: Sequence[str], seeds: Sequence[int], workers: int, watch: Watch = silent
) -> Rows:
    """Every driver on every seed under every condition. UserError where the world has none, or a driver can't act."""
    conditions = world.gauntlet()
    if not conditions:
        raise UserError(f"{world.called} has no disturbances to run a gauntlet of; leave out --gauntlet")
    done, total = 0, len(conditions) * len(names) * len(seeds)
    found: dict[str, dict[str, list[Episode]]] = {}
    for condition, spec in conditions.items():
        for name in names:
            row = found.setdefault(condition, {}).setdefault(name, [])
            for episode in drives(spec, name, seeds, workers):
                row.append(episode)
                done += 1
                watch("driving", done, total, f"{condition}: {name} {episode.score:.0f}")
    return found


def gauntlet_scores(rows: Rows) -> dict[str, dict[str, Scores]]:
    """`driving_scores` by condition and driver."""
    return {
        condition: {name: driving_scores(part) for name, part in drivers.items()} for condition, drivers in rows.items()
    }


def gauntlet_table(scores: Mapping[str, Mapping[str, Scores]], words: Words) -> Printed:
    """A row a condition: mean, standard deviation, least and successes of the first driver, the means of the others."""
    first, *others = next(iter(scores.values()))
    table = Printed("condition", first, "sd", "min", words.successes, *others, box=None)
    for condition, drivers in scores.items():
        s = drivers[first]
        sd = "" if s["sd"] is None else f"{s['sd']:.1f}"
        beside = (f"{drivers[name]['mean']:.1f}" for name in others)
        successes = f"{s['successes']} of {s['episodes']}"
        table.add_row(condition, f"{s['mean']:.1f}", sd, f"{s['min']:.1f}", successes, *beside)
    return table


def gauntlet_report(title: str, rows: Rows) -> Report:
    """The page: the table, and of every condition where the first driver's worst episode went."""
    scores = gauntlet_scores(rows)
    first, *others = next(iter(rows.values()))
    means = {condition: drivers[first]["mean"] for condition, drivers in scores.items()}
    plain, worst = next(iter(means)), min(means, key=lambda condition: means[condition])
    world = rows[plain][first][0].world
    words = world.words
    cells = []
    for condition, drivers in scores.items():
        s = drivers[first]
        beside = [drivers[name]["mean"] for name in others]
        cells.append([condition, s["mean"], s["sd"], s["min"], f"{s['successes']} of {s['episodes']}", *beside])
    table = Table(("condition", f"{first}: mean", "sd", "worst", words.successes, *others), cells, strong=[0])
    summary = (
        f"{first} scores {means[plain]:.1f} where nothing is disturbed; worst is {worst}, where it scores "
        f"{means[worst]:.1f}. Every condition has the same {len(rows[plain][first])} {words.episode}s."
    )
    facts = [
        Fact("Undisturbed", f"{means[plain]:.1f}"),
        Fact("Worst condition", f"{means[worst]:.1f}", worst),
        Fact("Conditions", str(len(means))),
    ]
    sections = [
        Section(
            "Under every disturbance",
            "Each row is one disturbance at the strength named, the same for all drivers. An expert sees the state "
            "itself, so that noise and light are nothing to it; what is done late, and a slippery road, are.",
            [table],
        )
    ]
    for condition, drivers in rows.items():
        lowest = min(drivers[first], key=lambda episode: episode.score)
        for section in world.sections([lowest]):
            text = (
                f"The lowest score of {first} here: {lowest.score:.1f}, {words.episode} {lowest.seed}. {section.text}"
            )
            sections.append(replace(section, title=condition, text=text))
    return Report(title, summary, facts, sections)
