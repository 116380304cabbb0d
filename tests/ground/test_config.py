"""Specs and JSON: what was written comes back, whatever else is read is refused in words."""

import json
import math
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small

from steersman.config import Spec, did_you_mean, from_json, to_json
from steersman.data.batches import Lanes, Windows
from steersman.data.splits import Split
from steersman.errors import UserError
from steersman.nn.cores import GRU, LSTM, RNN, Stack
from steersman.nn.heads import Classification, Regression
from steersman.nn.pictures import Conv, Picture
from steersman.plugins import PARTS, part
from steersman.recipes import RECIPES
from steersman.training.trainer import Training

PLAIN = to_json(small("steer"))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
KINDS = st.sampled_from([*Spec.KINDS, "Nonsense"])
NAMES = st.sampled_from(["hidden", "layers", "rows", "steps", "targets", "encoder", "training", "rate", "by"])
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=3)
        | st.builds(lambda kind, rest: {"kind": kind} | rest, KINDS, st.dictionaries(NAMES, inner, max_size=3))
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON)
def test_any_json_gives_a_spec_or_says_what_is_wrong(data):
    with suppress(UserError):
        assert isinstance(from_json(data), Spec)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_change_to_a_recipe_gives_a_spec_of_the_same_types_or_says_what_is_wrong(data):
    changed = json.loads(json.dumps(PLAIN))
    place = changed
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    try:
        recipe = from_json(changed)
    except UserError:
        return
    assert isinstance(recipe.batches, Lanes | Windows)
    assert isinstance(recipe.split, Split)
    assert isinstance(recipe.training, Training)
    assert all(isinstance(spec, Spec) for spec in (recipe.encoder, recipe.core, recipe.head, *recipe.augment))
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe


@given(
    st.recursive(
        st.builds(LSTM, hidden=st.integers(1, 99), forget_bias=st.floats(-2, 2)) | st.builds(GRU, st.integers(1, 9)),
        lambda inner: st.builds(Stack, st.lists(inner, max_size=3).map(tuple), st.floats(0, 1)),
        max_leaves=5,
    )
)
def test_nested_specs_go_to_json_and_back(spec):
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"core": {"kind": "LSTN"}}, "did you mean 'LSTM'"),
        ({"core": {"kind": "LSTM", "hiden": 3}}, "did you mean 'hidden'"),
        ({"core": {"kind": "LSTM", "hidden": "many"}}, r"core\.hidden: expected int"),
        ({"core": {"kind": "LSTM", "hidden": True}}, r"core\.hidden: expected int"),
        ({"core": {"kind": "LSTM", "hidden": 0}}, "hidden must be at least 1"),
        ({"core": None}, "core: expected CoreSpec"),
        ({"batches": {"kind": "GRU"}}, "expected Lanes or Windows"),
        ({"batches": {"kind": "Lanes", "batch": 3}}, "did you mean 'batch_size'"),
        ({"training": to_json(Split())}, "training: expected Training"),
        ({"training": {"kind": "Training", "learning_rate": math.nan}}, "finite"),
        ({"training": {"kind": "Training", "learning_rate": 10**400}}, "finite"),
        ({"flavour": "many-to-few"}, "flavour"),
        ({"augment": {"kind": "Mirror"}}, "augment: expected"),
    ],
)
def test_what_is_wrong_is_named(change, said):
    with pytest.raises(UserError, match=said):
        from_json(PLAIN | change)


def test_a_field_that_has_no_default_must_be_there():
    with pytest.raises(UserError, match="encoder"):
        from_json({k: v for k, v in PLAIN.items() if k != "encoder"})


def test_an_int_where_a_float_is_meant_is_one():
    assert from_json({"kind": "Training", "learning_rate": 1}).learning_rate == 1.0


@pytest.mark.parametrize(
    "spec",
    [
        lambda: Training(steps=0),
        lambda: Training(validate_every=0),
        lambda: Training(checkpoint_every=-1),
        lambda: Training(learning_rate=math.nan),
        lambda: Training(seed=-1),
        lambda: Lanes(batch_size=0),
        lambda: Lanes(window=0),
        lambda: Windows(batch_size=0),
        lambda: Windows(window=-1),
        lambda: Split(validation=1.5),
        lambda: Split(gap_s=-1),
        lambda: RNN(0),
        lambda: GRU(-3),
        lambda: LSTM(0),
        lambda: Stack((), dropout=2),
        lambda: Conv(kernels=(5, 0, 3)),
        lambda: Conv(dropout=-0.1),
        lambda: Picture(height=0),
        lambda: Picture(top=1.1),
        lambda: Regression(delta=0),
        lambda: Classification(classes=0),
    ],
)
def test_values_out_of_bounds_are_refused(spec):
    with pytest.raises(UserError, match="must be"):
        spec()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (lambda: Regression(targets=("y")), r"Regression\.targets: expected a tuple, found 'y'; one of a single item"),
        (lambda: Regression(targets=("y", 3)), r"Regression\.targets\[1\]: expected str, found '3'"),
        (lambda: Training(steps="9"), r"Training\.steps: expected int"),
        (lambda: Training(steps=1e3), r"Training\.steps: expected int, found '1000.0'"),
        (lambda: Training(seed=True), r"Training\.seed: expected int"),
        (lambda: Training(precision="float16"), "precision: expected"),
        (lambda: LSTM(forget_bias=math.inf), r"LSTM\.forget_bias must be a finite number"),
        (lambda: Stack((GRU(), Split())), r"Stack\.layers\[1\]: expected CoreSpec"),
        (lambda: replace(small("echo"), core=Split()), r"StepRecipe\.core: expected CoreSpec, found"),
        (lambda: replace(small("echo"), batches=GRU()), r"StepRecipe\.batches: expected Lanes or Windows"),
        (lambda: replace(small("echo"), source=Split()), r"StepRecipe\.source: expected SourceSpec"),
    ],
)
def test_types_are_checked_when_a_spec_is_made(spec, said):
    with pytest.raises(UserError, match=said):
        spec()


def test_numbers_of_numpy_and_lists_are_what_they_stand_for():
    given = Training(steps=np.int64(7), learning_rate=np.float64(0.5), tensorboard=np.bool_(True), betas=[0.5, 1])
    conv = Conv(channels=np.array([4, 8]), kernels=[5, 3], strides=(2, np.int32(2)), dropout=np.float32(0.5))
    assert given == Training(steps=7, learning_rate=0.5, tensorboard=True, betas=(0.5, 1.0))
    assert repr(conv) == repr(Conv(channels=(4, 8), kernels=(5, 3), strides=(2, 2), dropout=0.5))
    for spec in (given, conv):
        assert from_json(json.loads(json.dumps(to_json(spec)))) == spec


def made_by_default() -> list[Spec]:
    """A spec of every kind of the package that needs no values."""
    for place in PARTS:
        part(place)
    found = []
    for kind in Spec.KINDS.values():
        if kind.__module__.startswith("steersman.") and is_dataclass(kind):
            with suppress(TypeError, UserError):
                found.append(kind())
    return found


def test_every_number_of_every_spec_is_finite_and_of_a_size_that_machines_count_in():
    specs = made_by_default()
    assert len(specs) > 50
    for spec in specs:
        for field in fields(spec):
            held = getattr(spec, field.name)
            if isinstance(held, bool) or not isinstance(held, int | float):
                continue
            huge = 10**30 if isinstance(held, int) else math.inf
            for bad in (huge, -huge, math.nan, *([-1] if field.name == "seed" else [])):
                with pytest.raises(UserError, match=field.name):
                    replace(spec, **{field.name: bad})


def test_what_json_does_not_hold_is_refused_in_words():
    @dataclass(frozen=True)
    class OwnFolder(Spec):
        folder: Path = Path()

    with pytest.raises(UserError, match=r"a P\w*Path can't be written in a config\.json"):
        to_json(OwnFolder())


@pytest.mark.parametrize("name", RECIPES)
def test_a_variant_is_a_value(name):
    recipe = RECIPES[name](())
    changed = replace(recipe, training=replace(recipe.training, steps=7))
    assert changed != recipe
    assert from_json(to_json(changed)).training.steps == 7


def test_a_spec_of_ones_own_is_known_by_its_name():
    @dataclass(frozen=True)
    class OwnSource(Spec):
        size: int = 3

    assert from_json({"kind": "OwnSource", "size": 4}) == OwnSource(4)


def test_did_you_mean_is_silent_where_nothing_is_close():
    assert did_you_mean("stear", ["steer", "echo"]) == "; did you mean 'steer'?"
    assert did_you_mean("xyzzy", ["steer", "echo"]) == ""
