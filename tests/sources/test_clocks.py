"""Clocks as logs have them: shuffled, coarse, standing still or no numbers; right in the end, or refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_driving_logs import BEGIN_NS, deeptesla, image, interpolated, ros, ros_store, shades
from test_folder import drive
from test_sources import line, row, tub, udacity

from steersman.data.records import Stream, clock_fault
from steersman.errors import UserError
from steersman.sources import read
from steersman.sources.clocks import ordered, runs, spread


@pytest.mark.parametrize(
    ("time_s", "why"),
    [
        ([0, 2, 1], "stamp 2 is 1 s, after 2 s"),
        ([3, 2, 1], "stamp 1 is 2 s, after 3 s"),
        ([0, np.nan, 2], "stamp 1 is nan"),
        ([np.nan, 1, 2], "stamp 0 is nan"),
        ([0, 1, np.inf], "stamp 2 is inf"),
    ],
)
def test_a_stream_without_an_ascending_clock_is_refused(time_s, why, monkeypatch):
    for checked in (1, 2, 2**20):
        monkeypatch.setattr("steersman.data.records.CHECKED", checked)
        with pytest.raises(UserError, match=why):
            Stream(np.zeros(3), np.array(time_s, float))
        assert clock_fault(np.arange(5.0)) is None


def test_streams_of_one_clock_keep_their_values_beside_each_other_though_stamps_repeat():
    clock = np.array([0, 0, 1, 1, 1, 2.0])
    y = Stream(np.arange(6), clock)
    assert y.at(clock.copy()).tolist() == [0, 1, 2, 3, 4, 5]
    assert y.at(np.array([0.5, 1])).tolist() == [1, 4]  # the last that was known


@settings(max_examples=50)
@given(st.floats(3, 60), st.sampled_from([0.1, 0.2, 1.0]), st.floats(0, 1), st.floats(0, 0.2), st.integers(0, 9))
def test_stamps_of_a_coarse_clock_are_spread_to_within_a_frame_of_the_truth(rate, tick, phase, jitter, seed):
    noise = np.random.default_rng(seed).uniform(-jitter, jitter, 200)
    truth = (phase + np.arange(200) + noise) / rate
    coarse = np.floor(truth / tick) * tick
    found, said = spread(coarse)
    if not said:
        assert rate * tick < 1.1
        assert np.array_equal(found, coarse)
    else:
        assert (np.diff(found) > 0).all()
        assert np.abs(found - truth).max() < 1.6 / rate


def test_a_pause_and_several_runs_of_a_coarse_clock_stay_apart():
    truth = np.concatenate([np.arange(3.35, 8, 0.05), np.arange(30, 36, 0.05)])
    found, said = spread(np.floor(truth))
    assert "up to 20 frames share a stamp, usually 20" in said
    np.testing.assert_allclose(found, truth, atol=0.06)
    again = np.tile(np.floor(np.arange(0, 6, 0.05)), 2)
    found, _ = spread(runs(again, [None] * len(again)))
    np.testing.assert_allclose(np.diff(found[120:]), 0.05)


def test_a_fine_clock_comes_back_as_it_is():
    clock = np.arange(100) / 20
    clock[50] = clock[49]
    assert spread(clock)[0] is clock
    assert ordered(clock, [None] * 100) == (None, "")
    assert ordered(np.tile(np.arange(50.0), 4), [None] * 200) == (None, "")  # set back three times


@pytest.mark.parametrize("clock", [np.zeros(30), np.repeat(np.arange(12.0), [1, 20, 2, 9, 30, 1, 1, 25, 3, 17, 40, 1])])
def test_a_clock_that_tells_nothing_is_refused(clock, tmp_path):
    with pytest.raises(ValueError, match=r"its clock (stands still|is too coarse)"):
        spread(clock)
    order = np.arange(len(clock))
    log = drive(tmp_path, len(clock), "image,steering,time_s", lambda i: f"{i}.jpg,{order[i] / 1000},{clock[i]}")
    with pytest.raises(UserError, match=r"clock .* give the frames finer stamps"):
        read(log)
    assert len(read(f"{log}?rate=20")[0]) == len(clock)


SHUFFLED = np.random.default_rng(0).permutation(40)


def test_shuffled_rows_are_sorted_and_it_is_said(tmp_path):
    orders = {"shuffled": SHUFFLED, "backwards": np.arange(40)[::-1], "as names": sorted(range(40), key=str)}
    for name, order in orders.items():
        logs = (
            udacity(tmp_path / name / "sim", [row(int(i), steering=int(i) / 40) for i in order]),
            drive(tmp_path / name / "csv", 40, row=lambda i, at=order: f"{at[i]}.jpg,{-at[i] / 40},{at[i] / 20}"),
        )
        for log in logs:
            (record,) = read(log)
            np.testing.assert_allclose(record["steer"].values, -np.arange(40) / 40, atol=1e-6)
            assert (np.diff(record["steer"].time_s) > 0).all()
            assert "all were sorted" in record.about["clock"]
        assert np.array_equal(shades(record["picture"].values[:]), np.arange(40))


def test_tubs_films_and_tables_of_several_cameras_are_sorted_too(tmp_path):
    (record,) = read(tub(tmp_path / "tub", [line(int(i)) for i in SHUFFLED]))
    assert (np.diff(record["steer"].time_s) > 0).all()
    lines = {place: f"{1464650070285914 + 33333 * i},{i},{i / 2}" for place, i in enumerate(SHUFFLED)}
    (record,) = read(deeptesla(tmp_path / "tesla", 40, 40, lines))
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(40))
    np.testing.assert_allclose(record["angle_rad"].values, -np.radians(np.arange(40) / 2), atol=1e-6)
    log = interpolated(tmp_path / "ch2") / "interpolated.csv"
    (before,) = read(log)
    first, *rows = log.read_text().splitlines()
    log.write_text("\n".join([first, *np.random.default_rng(1).permutation(rows)]))
    (after,) = read(log)
    assert np.array_equal(before["steer"].values, after["steer"].values)


def test_whole_seconds_of_a_table_are_spread_and_it_is_said(tmp_path):
    log = drive(tmp_path, 100, "image,steering,timestamp", lambda i: f"{i}.jpg,{i / 200},{1700000000 + (i + 7) // 20}")
    (record,) = read(log)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(100) / 20, atol=1e-6)
    assert record.about["rate_hz"] == 20
    assert "up to 20 frames share a stamp" in record.about["clock"]


@pytest.mark.parametrize("coarse_recording", [False, True])
def test_stamps_of_a_simulator_that_several_pictures_share(coarse_recording, tmp_path):
    """Its clock ticks at 5 Hz, the camera at 20 and the wheel at 50."""
    store, writing = ros_store(), pytest.importorskip("rosbags.rosbag1")
    messages = [(50_000_000 * i, "/center_camera/image_color/compressed", i) for i in range(60)]
    messages += [(20_000_000 * i, "/vehicle/steering_report", i) for i in range(150)]
    with writing.Writer(tmp_path / "sim.bag") as out:
        connections = {}
        for at, topic, i in sorted(messages):
            time_ns = BEGIN_NS + at
            stamp = time_ns - time_ns % 200_000_000
            kind, message = image(store, stamp, i, raw=False)
            if "report" in topic:
                fields = {"steering_wheel_torque": 0.5, "speed": 9.0, "enabled": False}
                kind = "dbw_mkz_msgs/SteeringReport"
                message = ros(store, kind, stamp, steering_wheel_angle=at / 1e9, **fields)
            name = kind.replace("/", "/msg/")
            if topic not in connections:
                connections[topic] = out.add_connection(topic, name, typestore=store)
            out.write(connections[topic], stamp if coarse_recording else time_ns, store.serialize_ros1(message, name))
    (record,) = read(tmp_path / "sim.bag")
    np.testing.assert_allclose(np.diff(record["picture"].time_s), 0.05, atol=1e-6)
    np.testing.assert_allclose(record["angle_rad"].at(record["picture"].time_s), np.arange(60) / 20, atol=0.021)
    assert ("spread evenly" if coarse_recording else "time of recording") in record.about["clock"]
