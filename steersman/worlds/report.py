"""Page and film of episodes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..evaluation.page import SPACE, Fact, Report, Section, Table
from ..evaluation.plots import Trace, prediction_over_truth
from ..evaluation.sections import run_sections
from ..json_types import JsonMapping
from ..progress import Watch, silent
from .plots import scores_per_episode
from .rollout import Episode, named_policy, rollout
from .scores import driving_scores
from .world import FactValue, Info, Labels, Words, World, WorldSpec

Film = tuple[Trace | None, np.ndarray | None]
"""The model's first choice beside the expert's, where there is an expert; a frame of the film."""


def report_drives(
    title: str,
    episodes: Mapping[str, Sequence[Episode]],
    filmed: Film | None = None,
    published: Sequence[Sequence[object]] = (),
) -> Report:
    """The page on closed-loop episodes, by policy; the first one's are shown, and what was filmed of it."""
    shown = next(iter(episodes.values()))
    world = shown[0].world
    scores = {name: driving_scores(part) for name, part in episodes.items()}
    trace, picture = filmed or (None, None)
    own, traces = world.sections(shown), [trace] if trace else []
    return driving_report(title, scores, world, own=own, traces=traces, published=published, picture=picture)


def driving_report(
    title: str,
    policies: Mapping[str, JsonMapping],
    world: WorldSpec,
    log: Sequence[Mapping[str, float]] = (),
    config: JsonMapping | None = None,
    own: Sequence[Section] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[object]] = (),
    picture: np.ndarray | None = None,
) -> Report:
    """Scores (`driving_scores`) by policy, the model first, and the world's own sections.

    `published` rows: driver, mean, sd, source.
    """
    sections = driving_sections(policies, world, own, traces, published)
    summary, facts = driving_summary(policies, world.words), driving_facts(next(iter(policies.values())), world.words)
    return Report(title, summary, facts, [*sections, *run_sections(log, config)], picture)


def driving_summary(policies: Mapping[str, JsonMapping], words: Words) -> str:
    """The outcome in two sentences; the first policy is the model."""
    (name, scores), *others = policies.items()
    text = (
        f"On {scores['episodes']} {words.episode}s {name} scores {scores['mean']:.1f} on average "
        f"and {words.succeeds} {scores['successes']} of them. Its worst {words.episode} gives {scores['min']:.1f}."
    )
    if others:
        text += " Beside it: " + ", ".join(f"{n} {s['mean']:.1f}" for n, s in others) + "."
    return text


def driving_facts(scores: JsonMapping, words: Words) -> list[Fact]:
    """The figures at the top."""
    spread = f"± {scores['sd']:.1f} over {words.episode}s" if scores["sd"] is not None else ""
    latency = scores["latency_ms"]
    facts = [
        Fact("Mean score", f"{scores['mean']:.1f}", spread),
        Fact(words.title, f"{scores['successes']} of {scores['episodes']}".replace(" ", SPACE)),
        Fact(f"Worst {words.episode}", f"{scores['min']:.1f}"),
    ]
    if latency:
        slowest = f"99 of 100 within {latency['p99']:.2g}{SPACE}ms"
        facts.append(Fact(f"{words.seen.capitalize()} to action", f"{latency['median']:.2g} ms", slowest))
    return facts


def driving_sections(
    policies: Mapping[str, JsonMapping],
    world: WorldSpec,
    own: Sequence[Section] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[object]] = (),
) -> list[Section]:
    """Closed loop: the policies, each episode, what the world tells itself, and what was chosen."""
    words, seeds = world.words, next(iter(policies.values()))["seeds"]
    same = {name: s["scores"] for name, s in policies.items() if s["seeds"] == seeds}
    sections = [
        Section(
            "The drivers",
            f"The model chooses every action from the {words.seen} alone and lives with what follows. The score is "
            f"the world's own; {words.rule}.",
            [_policies_table(policies, words, published)],
        ),
        Section(
            f"{words.episode.capitalize()} by {words.episode}",
            "A good mean can hide a driver that fails now and then. Look for columns where the model's dot "
            "lies far below the others.",
            [scores_per_episode(seeds, same, words.episode)],
        ),
        *own,
    ]
    if traces:
        text = "The model's choice beside the expert's choice for the same moment, while the model drives."
        shown = prediction_over_truth(
            traces, "Where the lines part, the expert would act otherwise.", "model", "expert"
        )
        sections.append(Section(words.chosen, text, [shown]))
    return sections


def _policies_table(policies: Mapping[str, JsonMapping], words: Words, published: Sequence[Sequence[object]]) -> Table:
    rows = [
        [name, s["mean"], s["sd"], s["min"], f"{s['successes']} of {s['episodes']}", "measured here"]
        for name, s in policies.items()
    ]
    rows += [[name, mean, sd, None, None, source] for name, mean, sd, source in published]
    return Table(("driver", "mean", "sd", "worst", words.successes, "source"), rows, strong=[0])


def closing_facts(words: Words, episodes: Sequence[Episode]) -> Section:
    """A table of the world's facts at the end of each episode."""
    names = list(episodes[0].facts)
    rows = [[f"{words.episode} {e.seed}", *(_cell(e.facts[name]) for name in names), e.steps] for e in episodes]
    columns = (words.episode, *(name.replace("_", " ") for name in names), "steps")
    return Section("How each ended", "What the world says at the end of each.", [Table(columns, rows)])


def _cell(fact: FactValue) -> FactValue:
    return ("yes" if fact else "no") if isinstance(fact, bool) else fact


def film(spec: WorldSpec, name: str, seed: int, path: Path, watch: Watch = silent) -> Film:
    """One episode to an mp4: the world, what the model sees of it, its choice and beside it the expert's."""
    rows: list[tuple[float, float, float, bool]] = []
    still: list[np.ndarray] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    world = spec.build()
    expert, chosen = world.expert(), spec.needs[0]
    with world.film(path) as video:

        def frame(_: World, seen: np.ndarray, prediction: Labels, info: Info) -> None:
            truth = expert.act(world) if expert else None
            video.add(world.render(), seen, prediction, truth, {"time_s": world.time_s} | info | world.facts())
            if truth:
                rows.append((world.time_s, prediction[chosen], truth[chosen], bool(info.get("blind"))))
            if world.steps == spec.still_step:
                still.append(video.frame())
            watch("filming", world.steps, spec.max_steps)

        rollout(world, named_policy(name, world), seed, frame)
    picture = still[0] if still else None
    if not rows:
        return None, picture
    time_s, prediction, truth, blind = np.array(rows).T
    return Trace(f"{spec.words.episode} {seed}", time_s, prediction, truth, blind.astype(bool)), picture
