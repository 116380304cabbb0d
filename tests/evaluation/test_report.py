import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.evaluation.metrics import classification_scores, regression_scores
from steersman.evaluation.page import (
    Confusion,
    Fact,
    Pictures,
    Report,
    Section,
    Settings,
    Table,
    figure,
    page,
    write_report,
)
from steersman.evaluation.plots import Trace, prediction_over_truth, smoothed, thinned
from steersman.evaluation.sections import (
    _around_worst,
    classification_facts,
    classification_sections,
    classification_summary,
    regression_facts,
    regression_sections,
    regression_summary,
    run_sections,
)
from steersman.worlds import CarRacing
from steersman.worlds.car_racing_map import where_it_drove
from steersman.worlds.report import driving_report
from steersman.worlds.rollout import Episode
from steersman.worlds.scores import driving_scores

VOID = {"meta", "img", "br"}
LOG = [
    {"step": s, "loss": 1 / s, "rate": 1e-3, "gradient_norm": 1.0} | ({"validation": 1.1 / s} if s % 20 == 0 else {})
    for s in range(1, 101)
]


class Reader(HTMLParser):
    """Checks that tags balance and gathers attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


def episode(seed=7, score=900.0, latency_ms=(0.5,)):
    """A drive on a round track, off the road once."""
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = 80 * np.stack([np.cos(angle), np.sin(angle)], 1)
    off_road = [{"time_s": 1.0, "x_m": 80.0, "y_m": 0.0}]
    extras = {"track_m": circle.tolist(), "path_m": (circle[:60] + 1).tolist(), "off_road": off_road}
    return Episode(CarRacing(), seed, score, 700, True, latency_ms, {}, extras)


def traces():
    time_s = np.arange(3000) / 50
    blind = (time_s % 5) < 0.4
    return [Trace("one", time_s, np.sin(time_s), np.sin(time_s + 0.1), blind)]


def a_driving_report(name="model <b>&"):
    model = driving_scores([episode(s, 900.0 + s) for s in range(4)])
    picture = np.zeros((40, 60, 3), np.uint8)
    config = {"recipe": "steer", "core": {"hidden": 128, "note": "<i>"}}
    drivers = {name: model, "expert": model}
    published = [("World Models", 906.0, 21.0, "arXiv")]
    own = [where_it_drove([episode()])]
    return driving_report("A drive", drivers, CarRacing(), LOG, config, own, traces(), published, picture)


def told(title, scores, sections):
    """A page of an estimate."""
    return Report(title, regression_summary(scores), regression_facts(scores), sections)


def a_regression_report():
    truths = [traces()[0].truth, traces()[0].truth[:500]]
    predictions = [truth + 0.1 for truth in truths]
    scores = regression_scores(predictions, truths, 0.0, 50, {"single frame": truths}, ["one", "two"])
    pictures = Pictures([np.zeros((84, 96, 3), np.uint8)], ["1 s"])
    others = {"single frame": scores["by_size"]}
    return told(
        "Steering", scores, [*regression_sections(scores, traces(), others, pictures), *run_sections(LOG, {"a": 1})]
    )


def a_classification_report():
    labels = np.arange(12) % 3
    scores = classification_scores(np.eye(3)[labels], labels, np.full(3, 9), ["a", "b<", "c"])
    sections = [*classification_sections(scores), *run_sections(LOG, {"a": 1})]
    return Report("Digits", classification_summary(scores), classification_facts(scores), sections)


REPORTS = [a_driving_report, a_regression_report, a_classification_report]


@pytest.mark.parametrize("make", REPORTS)
def test_a_page_is_balanced_and_fetches_and_runs_nothing(make):
    text = page(make())
    reader = Reader(text)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "embed"}
    assert not re.search(r"https?://|@import|javascript:", text)
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
    for source in reader.values("src"):
        assert source.startswith("data:image/png;base64,")
    for target in reader.values("href"):
        assert target.startswith("#")


@pytest.mark.parametrize("make", REPORTS)
def test_ids_are_unique_and_every_reference_finds_its_own(make):
    text = page(make())
    ids = Reader(text).values("id")
    assert len(ids) == len(set(ids))
    assert {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)} <= set(ids)


@pytest.mark.parametrize("make", REPORTS)
def test_plots_are_whole_svg_in_the_colours_of_the_page(make):
    svgs = re.findall(r"<svg.*?</svg>", page(make()), flags=re.DOTALL)
    assert len(svgs) >= 2
    for svg in svgs:
        ElementTree.fromstring(svg)
        assert not re.search(r"(fill|stroke): #", svg), "a colour that does not follow light and dark"
        assert "var(--" in svg


@given(st.text(max_size=30))
@settings(max_examples=50, deadline=None)
def test_text_of_any_kind_is_shown_as_it_is_and_never_as_markup(text):
    hostile = f"<script>&\"'{text}"
    sections = [
        Section(
            hostile,
            hostile,
            [
                Table([hostile], [[hostile]], hostile),
                Settings({hostile: {hostile: hostile}}),
                Pictures([np.zeros((2, 2, 3), np.uint8)], [hostile]),
                Confusion([[1]], [hostile], hostile),
            ],
        )
    ]
    html = page(Report(hostile, hostile, [Fact(hostile, hostile, hostile)], sections, None, hostile))
    reader = Reader(html)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert unescape(html).count(hostile) >= 15


def test_plot_text_is_escaped_too():
    text = page(a_driving_report("<b>model</b>"))
    assert "<b>" not in text
    assert "&lt;b&gt;model" in text


def test_the_words_follow_the_figures():
    truth = [np.sin(np.arange(400) / 9)]
    steady = regression_scores([truth[0] * 0.9], truth, 0.5, 20)
    zero = figure(steady["baselines"]["zero"]["rmse"])
    assert f"the best of its baselines, zero, is off by {zero}" in regression_summary(steady)
    assert "in step with the truth" in regression_summary(steady)
    late = regression_scores([np.concatenate([[0.0] * 4, truth[0][:-4]])], truth, 0.0, 20)
    assert "0.2\N{NO-BREAK SPACE}s late" in regression_summary(late)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.04979, "0.0498"), (-0.5, "−0.500"), (919.73, "919.7"), (5614, "5,614"), ("<", "&lt;")],  # noqa: RUF001
)
def test_figures_are_short_and_readable(value, shown):
    assert figure(value) == shown


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_extremes_and_order(values, num_points):
    y = np.array(values)
    x = np.arange(len(y))
    thin_x, thin_y = thinned(x, y, num_points)
    assert len(thin_x) <= max(num_points, 2)
    assert (thin_y.min(), thin_y.max()) == (y.min(), y.max())
    assert (np.diff(thin_x) > 0).all()
    np.testing.assert_array_equal(thin_y, y[thin_x])


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=200))
def test_smoothing_is_a_mean_of_neighbours(values):
    half = max(1, int(len(values) * 0.02))
    brute = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    np.testing.assert_allclose(smoothed(np.array(values)), brute, atol=1e-9)


def test_a_run_of_one_step_and_one_track_makes_a_page():
    short = replace(episode(1, -20.0, ()), steps=1, done_well=False)
    report = driving_report("Short", {"model": driving_scores([short])}, CarRacing(), LOG[:1])
    Reader(page(report))


def test_a_road_without_a_bend_makes_a_page():
    straight = [np.zeros(100)]
    Reader(
        page(told("Straight", scores := regression_scores(straight, straight, 0.0, 20), regression_sections(scores)))
    )


def test_a_report_is_written_whole_and_reproducibly(tmp_path):
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, a_driving_report())
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "two.html"]


def test_a_report_can_be_made_from_json_alone():
    scores = json.loads(json.dumps(a_scores()))
    log = [json.loads(json.dumps(row)) for row in LOG]
    assert "RMSE" in page(told("From files", scores, [*regression_sections(scores), *run_sections(log, None)]))


def a_scores():
    truth = [np.sin(np.arange(200) / 9)]
    return regression_scores([truth[0] * 0.9], truth, 0.0, 20)


def test_worst_moments_are_drawn_apart_and_marked():
    time_s = np.arange(1200) / 20
    truth = np.sin(time_s)
    said = truth.copy()
    for step, error in ((200, 0.9), (230, 0.8), (260, 0.7), (800, 0.6)):
        said[step] += error
    scores = regression_scores([said], [truth], 0.0, 20, names=["a"]) | {"others": {}}
    drawn = _around_worst(scores["worst"], {"a": Trace("a", time_s, said, truth)})
    assert [list(trace.marks_s) for trace in drawn][:2] == [[10.0, 11.5, 13.0], [40.0]]
    for one, other in pairwise(sorted(drawn, key=lambda trace: trace.time_s[0])):
        assert one.time_s[-1] <= other.time_s[0]
    plot = prediction_over_truth(drawn, "Worst.")
    assert [key.label for key in plot.keys] == ["model", "truth", "worst moments"]
    assert "var(--alarm)" in plot.wide
    assert "var(--alarm)" not in prediction_over_truth([Trace("a", time_s, said, truth)], "All.").wide


@pytest.mark.parametrize("days", [0.14, 2.9, 3.6, 4.9, 70, 1000])
def test_a_clock_of_dates_is_drawn_without_a_warning_for_any_span(days):
    time_s = 1.7e9 + np.linspace(0, days * 86400, 50)
    drawn = prediction_over_truth([Trace("v", time_s, time_s, time_s, dated=True)], "v.")
    assert "<svg" in str(drawn)
