"""From records to batches: nothing lost, nothing twice, nothing across a record, state new where it must be."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steersman.data.augment import Mirror
from steersman.data.batches import Batches, Lanes, Windows
from steersman.data.examples import Example, Reading, Wanted, examples
from steersman.data.records import Record, Stream
from steersman.data.splits import Split
from steersman.errors import UserError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def numbered(lengths, size: int = 1) -> list[Example]:
    """Records whose every step knows its record and its place: x = y = 1000 * record + step."""
    shown = []
    for record, length in enumerate(lengths):
        x = (1000 * record + np.arange(length, dtype=np.float32))[:, None].repeat(size, 1)
        shown.append(Example(f"r{record}", x, x[:, :1].copy(), np.arange(length) / 10))
    return shown


def steps_of(batch) -> list[int]:
    return batch.x[..., 0][batch.mask > 0].int().tolist()


@given(LENGTHS, st.integers(1, 6), st.integers(1, 12), st.integers(0, 3), st.integers(0, 3))
def test_lanes_train_on_every_step_exactly_once_an_epoch(lengths, rows, steps, seed, epoch):
    shown = numbered(lengths)
    seen = Counter(
        step for batch in Batches(Lanes(rows, steps), shown, ("y",), (), seed).epoch(epoch) for step in steps_of(batch)
    )
    assert seen == Counter(int(v) for e in shown for v in e.x[:, 0])


@given(LENGTHS, st.integers(1, 6), st.integers(1, 12), st.integers(0, 3))
def test_lanes_carry_state_only_from_step_to_next_step_of_a_record(lengths, rows, steps, epoch):
    before: dict[int, int] = {}
    made = Batches(Lanes(rows, steps, restart_weight=0.25), numbered(lengths), ("y",))
    for time, batch in enumerate(made.epoch(epoch)):
        for row in range(rows):
            there = batch.mask[row] > 0
            if not there.any():
                assert batch.fresh[row]
                continue
            found = batch.x[row, there, 0].int().tolist()
            assert found == list(range(found[0], found[0] + len(found)))  # one stretch of one record
            assert there[: len(found)].all()  # padding only behind
            assert torch.equal(batch.x[row, there], batch.y[row, there])
            begins = found[0] % 1000 == 0
            assert bool(batch.fresh[row]) == (begins or time == 0)
            if not batch.fresh[row]:
                # The state that comes in is that of the step before, with no padding between.
                assert before[row] == found[0] - 1
            # A start in the middle of a record, where the state is not known, counts less.
            assert set(batch.mask[row, there].tolist()) == {0.25 if time == 0 and not begins else 1.0}
            before[row] = found[-1] if there.all() else -1


@given(LENGTHS, st.integers(1, 6), st.integers(0, 12), st.integers(0, 15), st.integers(0, 3))
def test_windows_stay_in_their_record_and_begin_anew(lengths, rows, steps, stride, epoch):
    made = Batches(Windows(rows, steps, stride), numbered(lengths), ("y",)).epoch(epoch)
    seen = Counter()
    for batch in made:
        assert len(batch.x) == rows
        assert batch.fresh.all()
        for row in range(rows):
            found = batch.x[row, batch.mask[row] > 0, 0].int().tolist()
            if found:
                assert found == list(range(found[0], found[0] + len(found)))
                assert not steps or len(found) <= steps
                assert found[-1] // 1000 == found[0] // 1000
            seen.update(found)
    if not steps:
        assert seen == Counter(int(v) for e in numbered(lengths) for v in e.x[:, 0])
    elif not stride:
        assert all(count == 1 for count in seen.values())
    assert {step // 1000 for step in seen} == set(range(len(lengths)))  # no record is left out


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 12))
def test_over_many_epochs_windows_reach_every_step(lengths, steps):
    made = Batches(Windows(4, steps), numbered(lengths), ("y",))
    seen = {step for epoch in range(200) for batch in made.epoch(epoch) for step in steps_of(batch)}
    reachable = {1000 * r + s for r, n in enumerate(lengths) for s in range(n)}
    assert reachable == seen


@pytest.mark.parametrize("spec", [Lanes(4, 5), Windows(4, 5), Windows(4)])
def test_the_order_is_a_pure_function_of_seed_and_epoch(spec):
    lengths = [17, 30, 8, 21, 5, 13]

    def order(seed, epoch):
        made = Batches(spec, numbered(lengths), ("y",), (), seed)
        made.epoch(5)  # what was asked for before does not matter
        return [steps_of(batch) for batch in made.epoch(epoch)]

    assert order(3, 1) == order(3, 1)
    assert order(3, 1) != order(3, 2)
    assert order(3, 1) != order(4, 1)


@given(LENGTHS, st.sampled_from([1, 2, 3]), st.integers(0, 9), st.booleans())
def test_processes_share_out_the_rows_of_the_global_batch(lengths, ranks, steps, lanes):
    spec = Lanes(6, steps or 1) if lanes else Windows(6, steps)
    whole = Batches(spec, numbered(lengths), ("y",)).epoch(2)
    parts = [Batches(spec, numbered(lengths), ("y",), rank=rank, ranks=ranks).epoch(2) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(whole)}
    for i, batch in enumerate(whole):
        shares = [part[i] for part in parts]
        assert Counter(steps_of(batch)) == Counter(step for share in shares for step in steps_of(share))
        for row in range(6):
            mine = shares[row % ranks]
            assert steps_of_row(mine, row // ranks) == steps_of_row(batch, row)
            assert mine.fresh[row // ranks] == batch.fresh[row]


def steps_of_row(batch, row: int) -> list[int]:
    return batch.x[row, batch.mask[row] > 0, 0].int().tolist()


def test_rows_that_processes_can_not_share_are_refused():
    with pytest.raises(UserError, match=r"batches\.batch-size"):
        Batches(Lanes(5, 4), numbered([9]), ("y",), rank=0, ranks=2)


def drives(lengths, rate_hz: float = 10.0) -> list[Record]:
    records = []
    for i, length in enumerate(lengths):
        time_s = 3.0 + np.arange(length) / rate_hz
        values = np.arange(length, dtype=np.float32)
        records.append(Record(f"d{i}", {"x": Stream(values[:, None], time_s), "y": Stream(values, time_s)}))
    return records


@given(st.integers(3, 40), st.floats(0.01, 0.45), st.floats(0.01, 0.45), st.integers(0, 5))
def test_splits_by_record_give_each_record_to_one_part(n, validation, test, seed):
    assume(max(1, round(validation * n)) + max(1, round(test * n)) < n)
    records = drives([3] * n)
    parts = Split(validation=validation, test=test, seed=seed).divide(records)
    names = [r.name for part in parts.values() for r in part]
    assert sorted(names) == sorted(r.name for r in records)
    assert all(parts.values())
    assert abs(len(parts["test"]) - max(1, test * n)) <= 0.5


def test_folds_are_held_out_in_turn():
    records = [Record(str(i), {"x": Stream(np.zeros(2), np.arange(2.0))}) for i in range(11)]
    parts = [Split(validation=0.2, folds=3, fold=fold, seed=5).divide(records) for fold in range(3)]
    assert sorted(r.name for part in parts for r in part["test"]) == sorted(r.name for r in records)
    for part in parts:
        names = [r.name for held in part.values() for r in held]
        assert sorted(names) == sorted(r.name for r in records)
        assert len(part["validation"]) == 2


@given(
    st.lists(st.integers(2, 200), min_size=1, max_size=4), st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.floats(0, 3)
)
def test_splits_by_time_hold_out_the_later_part_behind_a_gap(lengths, validation, test, gap_s):
    split = Split(by="time", validation=validation, test=test, gap_s=gap_s)
    try:
        parts = split.divide(drives(lengths))
    except UserError:
        assert min(lengths) / 10 * min(validation, test) < gap_s + 0.3  # only where they are short
        return
    spans = {}
    for part, found in parts.items():
        for record in found:
            x, y = record["x"], record["y"]
            np.testing.assert_array_equal(np.asarray(x.values)[:, 0], np.asarray(y.values))
            np.testing.assert_allclose(x.time_s, 3.0 + np.asarray(y.values) / 10)  # values keep their times
            spans[record.name.split("[")[0], part] = (x.time_s[0], x.time_s[-1])
    for (name, part), (first, _) in spans.items():
        for (other, before), (_, last) in spans.items():
            order = ("train", "validation", "test")
            if name == other and order.index(before) < order.index(part):
                assert first >= last + gap_s - 1e-6


def test_a_split_by_time_decodes_no_frame_and_keeps_fingerprints_apart():
    class Frames:
        shape, dtype, fingerprint = (100, 4, 4, 3), np.dtype(np.uint8), "f"

        def __len__(self):
            return 100

        def __getitem__(self, index):
            raise AssertionError("decoded")

    time_s = np.arange(100) / 10
    parts = Split(by="time", gap_s=0).divide([Record("d", {"picture": Stream(Frames(), time_s)})])
    prints = {part[0]["picture"].values.fingerprint for part in parts.values()}
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("split", "lengths", "said"),
    [
        (Split(), [], "no record"),
        (Split(), [50], "--split.by time"),
        (Split(), [50, 50], "found 2"),
        (Split(validation=0.45, test=0.5), [5] * 4, "leave none"),
        (Split(validation=0.5, test=0.5), [5] * 4, "something to train on"),
        (Split(test=0), [5] * 4, "above 0"),
        (Split(folds=3, fold=3), [5] * 4, "--split.fold 3 of --split.folds 3"),
        (Split(by="time", folds=3), [5] * 4, "folds of whole records"),
        (Split(by="time", gap_s=99), [50, 60], "too short"),
    ],
)
def test_data_that_can_not_be_split_is_refused(split, lengths, said):
    with pytest.raises(UserError, match=said):
        split.divide(drives(lengths))


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 5), st.sampled_from([Lanes(3, 5), Windows(3, 5)]))
def test_mirror_flips_pictures_and_signs_for_a_whole_pass_over_a_record(seed, epoch, spec):
    rng = np.random.default_rng(1)
    shown = []
    for i in range(4):
        x = rng.integers(0, 256, (13, 2, 4, 3), np.uint8)
        shown.append(Example(str(i), x, rng.normal(size=(13, 3)).astype(np.float32), np.arange(13) / 10))
    targets, mirror = ("steer", "speed", "yaw"), Mirror(negate=("steer", "yaw"))
    made = Batches(spec, shown, targets, (mirror,), seed).epoch(epoch)
    flips: dict[int, set[bool]] = {}
    for pieces, batch in zip(made.pieces, made, strict=True):
        for row, piece in enumerate(pieces):
            if piece is None:
                continue
            part = slice(piece.start, piece.stop)
            steps = piece.stop - piece.start
            x, y = shown[piece.record].x[part], shown[piece.record].y[part]
            flipped = not np.array_equal(batch.x[row, :steps], x)
            sign = np.array([-1, 1, -1] if flipped else [1, 1, 1], np.float32)
            np.testing.assert_array_equal(batch.x[row, :steps], x[:, :, ::-1] if flipped else x)
            np.testing.assert_array_equal(batch.y[row, :steps], y * sign)
            flips.setdefault(piece.record, set()).add(flipped)
    assert all(len(found) == 1 for found in flips.values())


def test_mirror_is_drawn_anew_for_every_pass_and_half_the_time():
    x = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(1, 2, 4, 3)
    made = Batches(Windows(1), [Example("a", x, np.ones((1, 1), np.float32), np.zeros(1))], ("steer",), (Mirror(),))
    flipped = [made.epoch(n)[0].y.item() < 0 for n in range(200)]
    assert 70 < sum(flipped) < 130
    always = replace(Mirror(), share=1.0)
    assert Batches(made.spec, made.examples, ("steer",), (always,)).epoch(0)[0].y.item() == -1


def shown_of(record: Record, once: bool = False, tmp=None):
    return examples([record], Wanted([Reading("x", lambda x: x, "")], "x", ("y",), once=once), tmp)[0]


def test_targets_are_read_on_the_clock_of_the_inputs_and_never_from_the_future():
    x = Stream(np.zeros((5, 2), np.float32), np.arange(5.0))
    y = Stream(np.array([10, 20, 30], np.float32), np.array([0.5, 1.5, 3.0]))
    example = shown_of(Record("r", {"x": x, "y": y}))
    assert example.y[:, 0].tolist() == [10, 10, 20, 30, 30]  # before the first, the first
    assert shown_of(Record("r", {"x": x, "y": y}), once=True).y.tolist() == [30]


@pytest.mark.parametrize(("stream", "said"), [("x", "input"), ("y", "target")])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_finite_number_is_refused_with_its_place(stream, said, bad):
    values = {"x": np.zeros((6, 2), np.float32), "y": np.zeros(6, np.float32)}
    values[stream][4] = bad
    record = Record("lap 7", {k: Stream(v, np.arange(6.0)) for k, v in values.items()})
    with pytest.raises(UserError, match=rf"lap 7.*{said} at step 4"):
        shown_of(record)


def test_an_empty_record_and_a_missing_stream_are_refused():
    empty = Stream(np.zeros((0, 2), np.float32), np.zeros(0))
    with pytest.raises(UserError, match="empty"):
        shown_of(Record("r", {"x": empty, "y": Stream(np.zeros(0, np.float32), np.zeros(0))}))
    with pytest.raises(UserError, match=r"no stream 'y'.*it has x"):
        shown_of(Record("r", {"x": Stream(np.zeros((3, 2), np.float32), np.arange(3.0))}))
