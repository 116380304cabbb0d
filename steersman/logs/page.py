"""What was found in a log, as a table for the terminal and as a page."""

from pathlib import Path

import numpy as np
from rich.table import Table as Terminal

from ..console import counted
from ..data.records import Record
from ..evaluation.page import Block, Fact, Pictures, Report, Section, Table, figure, write_report
from ..evaluation.plots import Trace, correlation_over_lag, histogram, prediction_over_truth, values_over_time
from ..evaluation.sections import percent
from ..json_types import JsonMapping
from .inspect import Inspection, label_values
from .motion import WINDOWS, Lag

SHOWN = 12
"""Records with a row of their own in the terminal; the page has all."""


def inspection_rows(found: JsonMapping) -> list[tuple[str, str]]:
    """What is known of the whole log, a name and a value each."""
    label, lag, twice = found["label"], found["lag"], found["duplicates"]
    rows = [
        ("format", "; ".join(map(str, found["formats"])) or "not stated"),
        ("records", f"{found['records']:,}"),
        ("steps", f"{found['frames']:,} in {duration(found['seconds'])}"),
        ("rate", f"{found['rate_hz']:.4g} Hz" if found["rate_hz"] else "none"),
        ("clock", "; ".join(map(str, found["clocks"])) or "not stated"),
        ("gaps", f"{found['num_gaps']:,}{_longest(found['gaps'])}"),
        ("streams", ", ".join(f"{name} {_kind(kind)}" for name, kind in found["streams"].items())),
        ("left out while reading", f"{found['num_faults']:,}"),
        ("pictures that can't be decoded", f"{found['num_undecodable']:,}"),
        ("duplicates", f"{twice['consecutive']:,} consecutive, {twice['across_records']:,} across records"),
    ]
    if label:
        full = ", ".join(f"{range_rad:.3g} rad at full lock" for range_rad in found["steer_range_rad"])
        rows += [
            ("label", f"{label['stream']} from {label['min']:.3g} to {label['max']:.3g}" + (full and f"; {full}")),
            ("sign", "; ".join(map(str, found["signs"])) or "not stated"),
            ("zeros", f"{label['zeros']:.1%} of {label['stream']}; {counted(label['distinct'], 'distinct value')}"),
        ]
    if label and any(len(kind["shapes"][0]) == 3 for kind in found["streams"].values()):
        unlike = "not told: the scene's motion is unlike the label"
        rows.append(("lag of camera behind label", lag_text(lag) if lag else unlike))
    return rows


def inspection_table(found: JsonMapping) -> list[Terminal]:
    """The whole log, then its first records."""
    whole = Terminal(box=None, show_header=False)
    whole.add_column(style="dim", no_wrap=True)
    whole.add_column(overflow="fold")
    for name, value in inspection_rows(found):
        whole.add_row(name, value.replace("[", "\\["))
    each = Terminal("record", "steps", "seconds", "Hz", "mean label", "zeros", box=None)
    for row in found["each"][:SHOWN]:
        zeros = "" if row["zeros"] is None else f"{row['zeros']:.0%}"
        mean = "" if row["mean"] is None else f"{row['mean']:z.4f}"
        rate = f"{row['rate_hz']:.2f}" if row["rate_hz"] else ""
        name = row["name"].replace("[", "\\[")
        each.add_row(name, f"{row['frames']:,}", f"{row['seconds']:.1f}", rate, mean, zeros)
    if len(found["each"]) > SHOWN:
        each.add_row(f"and {len(found['each']) - SHOWN} more", style="dim")
    return [whole, each]


def lag_text(lag: JsonMapping) -> str:
    """The lag, how sure it is, and what it says of the sign."""
    sign = "positive is left, as it should be" if lag["correlation"] > 0 else "positive is RIGHT: turned around"
    return (
        f"{counted(lag['frames'], 'frame')} = {lag['seconds']:z.2f} s "
        f"({lag['least_s']:z.2f} to {lag['most_s']:z.2f} fit as well); "
        f"correlation {lag['correlation']:z.2f}: {sign}"
    )


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    units = (("s", 1, 120), ("min", 60, 7200), ("h", 3600, float("inf")))
    unit, size, _ = next(unit for unit in units if seconds < unit[2])
    return f"{seconds / size:.1f} {unit}"


def write_inspection(path: Path, inspection: Inspection) -> None:
    """The page, whole or not at all."""
    write_report(path, inspection_report(inspection))


def inspection_report(inspection: Inspection) -> Report:
    """Findings, pictures, the label over time, its histogram, the lag, and every record."""
    found, label = inspection.found, inspection.found["label"]
    sections = [_findings(found)]
    if pictures := _pictures(inspection):
        text = "Taken evenly over the whole log, in the size the log holds."
        sections.append(Section("Pictures", text, [pictures]))
    if label:
        sections += [_over_time(inspection), _spread(label)]
    if inspection.lag:
        sections.append(_lag(inspection.lag))
    return Report(f"Log: {Path(found['log']).name}", _summary(found), _facts(found), [*sections, _records(found)])


def _summary(found: JsonMapping) -> str:
    what = " and ".join(map(str, found["formats"])) or "a log whose reader states no format"
    number = len(found["warnings"])
    outcome = "Nothing in it looks wrong."
    if number:
        outcome = f"{counted(number, 'thing')} to know before training on it."
    return f"{what}: {counted(found['records'], 'record')} of {duration(found['seconds'])} in all. {outcome}"


def _facts(found: JsonMapping) -> list[Fact]:
    label, lag = found["label"], found["lag"]
    facts = [
        Fact("Steps", f"{found['frames']:,}", duration(found["seconds"])),
        Fact("Rate", f"{found['rate_hz']:.1f} Hz" if found["rate_hz"] else "none", counted(found["num_gaps"], "gap")),
    ]
    if label:
        facts.append(Fact("Zeros", percent(label["zeros"]), f"of {label['stream']}"))
    if lag:
        facts.append(Fact("Camera's lag", f"{lag['seconds']:z.2f} s", f"correlation {figure(lag['correlation'])}"))
    return facts


def _findings(found: JsonMapping) -> Section:
    blocks: list[Block] = []
    if found["warnings"]:
        blocks.append(Table(("to know before training",), [[text] for text in found["warnings"]], wraps=True))
    blocks.append(Table(("what", "found"), [list(row) for row in inspection_rows(found)], wraps=True))
    if found["faults"]:
        title = f"left out while reading, {len(found['faults'])} of {found['num_faults']}"
        blocks.append(Table((title,), [[fault] for fault in found["faults"]], wraps=True))
    if found["gaps"]:
        keys = ("record", "time_s", "seconds")
        rows = [[gap[key] for key in keys] for gap in found["gaps"]]
        blocks.append(Table(("longest gaps in", "at (s)", "for (s)"), rows))
    text = "What the log is, what its reader made of it, and what may spoil a training on it."
    return Section("Findings", text, blocks)


def _pictures(inspection: Inspection) -> Pictures | None:
    shown, captions = [], []
    for record, seen in zip(inspection.records, inspection.seen, strict=True):
        label = inspection.found["label"] and inspection.found["label"]["stream"]
        values = label_values(record, label) if label in record.streams else None
        clock = next(iter(record.streams.values())).time_s
        for i, picture in seen.kept:
            shown.append(_small(picture))
            said = "" if values is None else f": {label} {values[i]:+z.2f}"
            captions.append(f"{record.name}, {clock[i] - clock[0]:.1f} s{said}")
    return Pictures(shown, captions) if shown else None


def _small(picture: np.ndarray) -> np.ndarray:
    """A picture of at most 320 columns: a page, not an album."""
    step = -(-picture.shape[1] // 320)
    return np.ascontiguousarray(picture[::step, ::step])


def _over_time(inspection: Inspection) -> Section:
    label = inspection.found["label"]["stream"]
    told = [i for i, record in enumerate(inspection.records) if label in record.streams]
    longest = sorted(told, key=lambda i: -len(inspection.records[i]))[:3]
    text = f"The longest records, {label} as the reader gives it: left is up."
    blocks: list[Block] = []
    if inspection.lag:
        pairs = [(inspection.records[i], inspection.seen[i].motion) for i in longest]
        traces = [trace for record, motion in pairs if (trace := _beside(record, motion, label, inspection.lag))]
        said = "The scene's sideways motion, scaled to the label, shifted back by the lag and averaged over five steps."
        text += " Where the lines part, the camera saw something else than the label says."
        blocks.append(prediction_over_truth(traces, said, "scene's motion", label, "left is up"))
    else:
        for record in (inspection.records[i] for i in longest):
            time_s = next(iter(record.streams.values())).time_s
            values = label_values(record, label)
            blocks.append(values_over_time(time_s - time_s[0], values, record.name, f"{label} over time."))
    return Section("Over time", text, blocks)


def _beside(record: Record, motion: np.ndarray, label: str, lag: Lag) -> Trace | None:
    time_s = next(iter(record.streams.values())).time_s
    values = label_values(record, label)
    if not len(motion) or len(time_s) < 10:
        return None
    moved = np.nan_to_num(motion[:, WINDOWS.index(lag.window)])
    moved = np.convolve(np.roll(moved, -lag.frames - 1), np.ones(5) / 5, "same")
    slope = float(moved @ values / (moved @ moved)) if moved.any() else 0.0
    return Trace(record.name, time_s - time_s[0], abs(slope) * moved, values)


def _spread(label: JsonMapping) -> Section:
    spread = label["histogram"]
    text = (
        f"Mean {figure(label['mean'])}, standard deviation {figure(label['sd'])}, "
        f"{percent(label['zeros'])} exactly zero, {counted(label['distinct'], 'distinct value')}."
    )
    said = "A mean away from zero is a lopsided log; a high middle is mostly straight road."
    return Section("Label", text, [histogram(spread["counts"], spread["edges"], label["stream"], said)])


def _lag(lag: Lag) -> Section:
    text = (
        "When a car turns left the scene moves right. The lag at which that motion and the label agree best is the "
        "time from the label to its effect in the picture; below zero the label's sign is turned around."
    )
    window = "the whole picture" if lag.window == "whole" else "a window at the horizon"
    said = f"Motion from picture to picture over {window}. "
    said += f"Lags from {lag.least_s:z.2f} to {lag.most_s:z.2f} s fit as well."
    return Section("Lag", text, [correlation_over_lag(lag.curve, lag.seconds, said)])


def _records(found: JsonMapping) -> Section:
    keys = ("name", "frames", "seconds", "rate_hz", "mean", "zeros", "undecodable")
    rows = [[row[key] for key in keys] for row in found["each"]]
    columns = ("record", "steps", "seconds", "Hz", "mean label", "zeros", "undecodable")
    return Section("Records", "Every record of the log, in order.", [Table(columns, rows)])


def _kind(kind: JsonMapping) -> str:
    return " or ".join("x".join(map(str, shape)) or "number" for shape in kind["shapes"])


def _longest(gaps: list[JsonMapping]) -> str:
    if not gaps:
        return ""
    first = gaps[0]
    return f", the longest {first['seconds']:.2f} s at {first['time_s']:.1f} s of {first['record']}"
