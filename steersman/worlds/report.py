"""Page, film and table of drives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.page import (
    SPACE,
    Fact,
    Report,
    Section,
    Table,
)
from ..evaluation.plots import (
    Trace,
    prediction_over_truth,
)
from ..evaluation.sections import run_sections
from ..progress import Watch, silent
from .plots import Drive, scores_per_track, track_map
from .rollout import drive
from .scores import driving_scores


def driving_report(
    title: str,
    drivers: Mapping[str, Mapping[str, Any]],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    drives: Sequence[Drive] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[Any]] = (),
    picture: np.ndarray | None = None,
) -> Report:
    """Of evaluate.driving_scores by driver, the model first; `published` rows: driver, mean, sd, source."""
    sections = driving_sections(drivers, drives, traces, published)
    return Report(
        title,
        driving_summary(drivers),
        driving_facts(next(iter(drivers.values()))),
        [*sections, *run_sections(log, config)],
        picture,
    )


def driving_summary(drivers: Mapping[str, Mapping[str, Any]]) -> str:
    """The outcome in two sentences; the first driver is the model."""
    (name, scores), *others = drivers.items()
    text = (
        f"On {scores['episodes']} tracks {name} scores {scores['mean']:.1f} on average "
        f"and finishes {scores['laps']} of them. Its worst track gives {scores['min']:.1f}."
    )
    if others:
        text += " Beside it: " + ", ".join(f"{n} {s['mean']:.1f}" for n, s in others) + "."
    return text


def driving_facts(scores: Mapping[str, Any]) -> list[Fact]:
    """The figures at the top."""
    spread = f"± {scores['sd']:.1f} over tracks" if scores["sd"] is not None else ""
    latency = scores["latency_ms"]
    facts = [
        Fact("Mean score", f"{scores['mean']:.1f}", spread),
        Fact("Laps finished", f"{scores['laps']} of {scores['episodes']}".replace(" ", SPACE)),
        Fact("Worst track", f"{scores['min']:.1f}"),
    ]
    if latency:
        slowest = f"99 of 100 within {latency['p99']:.2g}{SPACE}ms"
        facts.append(Fact("Picture to action", f"{latency['median']:.2g} ms", slowest))
    return facts


def driving_sections(
    drivers: Mapping[str, Mapping[str, Any]],
    drives: Sequence[Drive] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[Any]] = (),
) -> list[Section]:
    """Closed loop: the drivers, each track, where the car left the road, and how it steered."""
    tracks = next(iter(drivers.values()))["seeds"]
    same = {name: s["scores"] for name, s in drivers.items() if s["seeds"] == tracks}
    sections = [
        Section(
            "The drivers",
            "The model chooses every action from the picture alone and lives with what follows. The score is "
            "the world's own; a lap is finished when the whole road has been visited.",
            [_drivers_table(drivers, published)],
        ),
        Section(
            "Track by track",
            "A good mean can hide a driver that fails now and then. Look for columns where the model's dot "
            "lies far below the others.",
            [scores_per_track(tracks, same)],
        ),
    ]
    if drives:
        sections.append(Section("Where it drove", _off_road_text(drivers), [track_map(drives)]))
    if traces:
        text = "The model's choice beside the expert's choice for the same moment, while the model drives."
        shown = prediction_over_truth(
            traces, "Where the lines part, the expert would act otherwise.", "model", "expert"
        )
        sections.append(Section("How it steered", text, [shown]))
    return sections


def _drivers_table(drivers: Mapping[str, Mapping[str, Any]], published: Sequence[Sequence[Any]]) -> Table:
    rows = [
        [name, s["mean"], s["sd"], s["min"], f"{s['laps']} of {s['episodes']}", "measured here"]
        for name, s in drivers.items()
    ]
    rows += [[name, mean, sd, None, None, source] for name, mean, sd, source in published]
    return Table(("driver", "mean", "sd", "worst", "laps", "source"), rows, strong=[0])


def _off_road_text(drivers: Mapping[str, Mapping[str, Any]]) -> str:
    count = len(next(iter(drivers.values()))["off_road"])
    if count == 0:
        return "The car never left the road."
    times = "once" if count == 1 else f"{count} times"
    return f"The car left the road {times} in all, over every track that was driven."


Film = tuple[Trace, np.ndarray | None]


STILL_STEP = 250
"""The step of a film that is also kept as a picture."""


def report_drives(
    title: str,
    episodes: Mapping[str, Sequence[dict[str, Any]]],
    filmed: Film | None = None,
    published: Sequence[Sequence[Any]] = (),
) -> Report:
    """The page on closed-loop drives, by driver; the first one's tracks are shown, and what was filmed of it."""
    driven = [
        Drive(f"track {e['seed']}", np.array(e["track_m"]), np.array(e["path_m"]), e["off_road"])
        for e in next(iter(episodes.values()))
    ]
    scores = {name: driving_scores(list(part)) for name, part in episodes.items()}
    traces, picture = ([filmed[0]], filmed[1]) if filmed else ([], None)
    return driving_report(title, scores, drives=driven, traces=traces, published=published, picture=picture)


def film(config: Any, name: str, seed: int, path: Path, watch: Watch = silent) -> Film:
    """One track to an mp4: the picture, the wheel the driver chose and beside it the expert's choice.

    Gives the two wheels over time, and a frame of the film.
    """
    from .film import DriveVideo

    rows: list[tuple[float, float, float, bool]] = []
    still: list[np.ndarray] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with DriveVideo(path) as video:

        def frame(world, picture, prediction, info, total: float) -> None:
            truth = world.expert().act(world)
            video.add(world.render(), picture, prediction, truth, info | {"score": total})
            rows.append((info["time_s"], prediction["steer"], truth["steer"], info["blind"]))
            if world.steps == STILL_STEP:
                still.append(video.frame())
            watch("filming", world.steps, config.max_steps)

        drive(config, name, seed, frame)
    time_s, prediction, truth, blind = np.array(rows).T
    picture = still[0] if still else None
    return Trace(f"track {seed}", time_s, prediction, truth, blind.astype(bool)), picture
