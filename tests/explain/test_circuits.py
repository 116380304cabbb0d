"""Circuits: torch's gradients gate by gate, formulas that are parsed and never run, refusals that say where."""

import json
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.explain.circuits import MOST_GATES, RED, circuit, draw, layout, values


def wires(formula: str, **given: float) -> dict[str, tuple[float, float]]:
    return {w.name: (w.value, w.gradient) for w in circuit(formula, given).wires}


def test_the_lectures_circuit():
    found = wires("(x + y) * z", x=-2, y=5, z=-4)
    assert found == {"x": (-2, -4), "y": (5, -4), "z": (-4, 3), "+": (3, -4), "*": (-12, 1)}


def test_a_neuron_with_two_outputs_adds_their_gradients():
    found = circuit("n = w*x + b; sigmoid(n); 2 * n", {"w": 1, "x": 2, "b": -1})
    s = 1 / (1 + math.exp(-1))
    slope = s * (1 - s) + 2
    gradients = {w.name: w.gradient for w in found.wires if w.gate == "variable"}
    assert gradients == pytest.approx({"w": 2 * slope, "x": slope, "b": slope})
    assert [w.name for w in found.outputs] == ["sigmoid", "*"]
    assert found.error < 1e-6


@pytest.mark.parametrize(
    ("formula", "value"),
    [("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("2 ^ 3 ^ 2", 512), ("-2 ^ 2", -4), ("2 ** -1", 0.5),
     ("8 / 4 / 2", 1),
     ("8 - 4 - 2", 2), ("- -3", 3), ("max(1, 4, 2) - min(5, 3)", 1), ("relu(-3) + tanh(0) + log(exp(2))", 2),
     ("power(3, 2)", 9), ("1e2 + .5", 100.5), ("a = 2; b = a * 3", 6)],
)  # fmt: skip
def test_precedence_is_that_of_arithmetic(formula, value):
    found = circuit(formula, {})
    assert found.outputs[-1].value == pytest.approx(value)


NAMES = st.sampled_from("xyz")
FORMULAS = st.recursive(
    st.one_of(NAMES, st.integers(1, 9).map(str)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(st.sampled_from(["sigmoid", "tanh"]), inner).map(lambda p: f"{p[0]}({p[1]})"),
        inner.map(lambda p: f"-({p})"),
        st.tuples(inner, inner).map(lambda p: f"{p[0]} / (2 + tanh({p[1]}))"),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(FORMULAS, st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_gradients_are_finite_differences_and_each_wire_gets_what_its_gates_give_back(formula, numbers):
    given = {name: n for name, n in zip("xyz", numbers, strict=True) if name in formula.replace("exp", "")}
    found = circuit(formula, given)
    assert found.error < 1e-4
    outputs = [id(w) for w in found.outputs]
    for wire in found.wires:
        got = sum(b for g in found.wires for i, b in zip(g.inputs, g.back, strict=False) if i is wire)
        assert wire.gradient == pytest.approx(got + outputs.count(id(wire)), rel=1e-6, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("xy01.9+-*/^(),;= emaxlogtnh'\"\\$_[]"), max_size=40))
def test_any_text_is_computed_or_refused(text):
    with suppress(UserError):
        assert math.isfinite(circuit(text, {"x": 0.5, "y": 2.0}).outputs[0].value)


@pytest.mark.parametrize(
    ("formula", "message"),
    [("x +", "character 4"), ("", "character 1"), ("x y", "found 'y', at character 3"), ("(x", "expected '\\)'"),
    
     ("__import__('os')", "character 12"), ("open(x)", "there is no gate open"),
     ("log(-x)", "no number, at character 1"),
     ("1 / (x - 1)", "no number, at character 3"), ("exp(x * 1000)", "no number"), ("max(x)", "takes 2 or more"),
     ("q", "q has no value"), ("x = 2; x", "already means"), ("(" * 60 + "x" + ")" * 60, "deeper than"),
     ("+".join(["x"] * 300), f"more than {MOST_GATES}"), ("x" * 3000, "3000 characters"),
     ("(0 - x) ^ 0.5", "no number"),
     ("(x - 1) ^ 0.5", "gradient"), ("x.real", "character 2"), ("negate(x)", "there is no gate")],
)  # fmt: skip
def test_a_refusal_says_where(formula, message):
    with pytest.raises(UserError, match=message):
        circuit(formula, {"x": 1.0})


@pytest.mark.parametrize("given", ["x", "x=", "x=two", "x=inf", "1x=2", "=3"])
def test_what_gives_no_number_is_refused(given):
    with pytest.raises(UserError, match="write it as x=-2"):
        values([given])


def test_a_number_for_nothing_is_refused():
    with pytest.raises(UserError, match="y does not occur"):
        circuit("x + 1", {"x": 1.0, "y": 2.0})


def test_the_picture_and_the_command(tmp_path, capsys):
    svg, png = draw(circuit("sigmoid(w*x + b)", {"w": 2, "x": -1, "b": -3}), tmp_path / "neuron")
    with Image.open(png) as image:
        assert image.width == 1200
    assert "sigmoid" in svg.read_text() or svg.stat().st_size > 5000
    assert main(["explain", "(x + y) * z", "x=-2", "y=5", "z=-4", "--json"]) in (0, None)
    found = json.loads(capsys.readouterr().out)
    assert [w["gradient"] for w in found["wires"] if w["gate"] == "variable"] == [-4, -4, 3]


@pytest.mark.parametrize(
    ("formula", "given"),
    [
        ("sigmoid(w0 * x0 + w1 * x1 + w2)", {"w0": 2, "x0": -1, "w1": -3, "x1": -2, "w2": -3}),
        ("x*x*y + tanh(x*y)", {"x": 2, "y": -0.5}),
        ("a = x*y; b = max(a, y); a*b + exp(a - b)", {"x": 1.5, "y": 0.5}),
    ],
)
def test_numbers_stand_off_the_wires_and_gradients_go_backwards(formula, given):
    made = layout(circuit(formula, {name: float(value) for name, value in given.items()}))
    labels = list(made.labels)
    for label in labels:
        made.labels.remove(label)
        assert made.crossed(label) == 0, label.text
        made.labels.append(label)
    forwards = [(a, b) for a, b, colour in made.arrows if colour != RED]
    backwards = [(a, b) for a, b, colour in made.arrows if colour == RED]
    assert len(forwards) == len(backwards)
    assert all(b[0] > a[0] for a, b in forwards)
    assert all(b[0] < a[0] for a, b in backwards)
    for label in (one for one in labels if one.colour == RED and not one.text.startswith("sum")):
        away = [np.linalg.norm(line(arrow) - np.array(label.middle), axis=1).min() for arrow in made.arrows]
        assert min(a for a, arrow in zip(away, made.arrows, strict=True) if arrow[2] == RED) < 14, label.text


def line(arrow):
    return np.linspace(arrow[0], arrow[1], 50)
