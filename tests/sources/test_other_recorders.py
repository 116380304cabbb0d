"""Logs of SullyChen, AirSim, World Models, CARLA and OpenBot: seconds, RGB, the wheel positive left."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from test_driving_logs import encoded, picture, shades

from steersman.errors import UserError
from steersman.sources import read

NUM = 30


def sullychen(folder: Path, num: int = NUM, timed: bool = True, place: str = "data", last: str = "") -> Path:
    (folder / place).mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(num):
        (folder / place / f"{i}.jpg").write_bytes(encoded(i))
        stamp = datetime(2018, 7, 1, 17, 9, 59) + timedelta(milliseconds=50 * i)
        time = f",{stamp:%Y-%m-%d %H:%M:%S}:{stamp.microsecond // 1000:03d}" if timed else ""
        lines.append(f"{i}.jpg {i * 3.0:.6f}{time}")
    (folder / "data.txt").write_text("\n".join([*lines, last]))
    return folder


@pytest.mark.parametrize("place", ["data", "."])
@pytest.mark.parametrize("timed", [True, False])
def test_sullychen_is_degrees_to_the_right(place, timed, tmp_path):
    (record,) = read(sullychen(tmp_path / "log", timed=timed, place=place))
    np.testing.assert_allclose(record["angle_rad"].values, -np.radians(np.arange(NUM) * 3), rtol=1e-6)
    np.testing.assert_allclose(record["steer"].values, record["angle_rad"].values / np.radians(540), rtol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(NUM) / (20 if timed else 30), atol=1e-6)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(NUM))
    assert ("nominal" in record.about["clock"]) != timed
    assert len(read(tmp_path / "log" / "data.txt")[0]) == NUM
    assert read(f"{tmp_path / 'log'}?rate=10")[0].about["rate_hz"] == 10


@pytest.mark.parametrize("last", ["29.jpg left", "99.jpg 1.0", "half a line", "29.jpg 1e9", "29.jpg 1,yesterday"])
def test_a_bad_line_of_sullychen_is_a_fault(last, tmp_path):
    (record,) = read(sullychen(tmp_path, last=last))
    assert (len(record), record.about["num_faults"]) == (NUM, 1)
    assert record.about["faults"][0].startswith("line 31: ")


def airsim(folder: Path, num: int = NUM, older: bool = False, cars: int = 1) -> Path:
    (folder / "images").mkdir(parents=True)
    columns = [
        "VehicleName",
        "TimeStamp",
        "POS_X",
        "Throttle",
        "Steering",
        "Brake",
        "Gear",
        "Handbrake",
        "RPM",
        "Speed",
        "ImageFile",
    ]
    if older:
        columns = ["Timestamp", "Speed (kmph)", "Throttle", "Steering", "Brake", "Gear", "ImageName"]
    lines = ["\t".join(columns)]
    for i in range(num):
        for car in range(cars):
            name = f"img_{car}_{i}.png"
            (folder / "images" / name).write_bytes(encoded(i, "PNG"))
            shots = name if older else f"C:\\rec\\images\\depth_{i}.pfm;C:\\rec\\images\\{name}"
            stamp, power, wheel = 1700000000000 + 50 * i, 0.5, i / 100
            row = [f"car{car}", stamp, 0.1, power, wheel, 0, 1, 0, 900, 5.0, shots]
            lines.append("\t".join(map(str, [stamp, 18, power, wheel, 0, 1, shots] if older else row)))
    (folder / "airsim_rec.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("older", [True, False])
def test_airsim_is_a_fraction_to_the_right(older, tmp_path):
    (record,) = read(airsim(tmp_path / "log", older=older))
    assert set(record.streams) == {"picture", "steer", "throttle", "brake", "speed_mps"}
    np.testing.assert_allclose(record["steer"].values, -np.arange(NUM) / 100, rtol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(NUM) / 20, atol=1e-6)
    np.testing.assert_allclose(record["speed_mps"].values, 5.0, rtol=1e-6)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(NUM))


def test_cars_of_airsim_that_take_turns_have_a_record_each(tmp_path):
    assert [len(record) for record in read(airsim(tmp_path, cars=2))] == [NUM, NUM]


def rollout(
    folder: Path, num: int = NUM, names=("observations", "actions", "terminals"), size=(48, 64), **more
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.stack([picture(i) for i in range(num)])
    if size != (48, 64):
        pictures = np.stack([np.full((*size, 3), 20 + i % 50 * 4, np.uint8) for i in range(num)])
    actions = np.stack([np.arange(num) / 100, np.full(num, 0.3), np.zeros(num)], 1)
    values = dict(zip(names, (pictures, actions, np.zeros(num, bool)), strict=False)) | more
    np.savez_compressed(folder / "rollout_0.npz", **values)
    return folder


@pytest.mark.parametrize("names", [("observations", "actions", "terminals"), ("obs", "action")])
def test_rollouts_are_a_fraction_to_the_right(names, tmp_path):
    (record,) = read(rollout(tmp_path, names=names))
    assert list(record.streams) == ["picture", "steer", "throttle", "brake"]
    np.testing.assert_allclose(record["steer"].values, -np.arange(NUM) / 100, rtol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(NUM) / 50)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(NUM))
    assert record["picture"].values[3].shape == (48, 64, 3)


def test_a_rollout_has_no_dashboard_and_ends_where_an_episode_does(tmp_path):
    ends = np.arange(NUM) == 9
    records = read(rollout(tmp_path, size=(96, 96), terminals=ends))
    assert [len(record) for record in records] == [10, 20]
    assert records[1]["picture"].values[:].shape == (20, 84, 96, 3)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"observations": np.array([{}] * NUM)}, "its pictures are object"),
        ({"actions": np.array([{}] * NUM)}, "pickle"),
        ({"actions": np.full((NUM, 3), 2.0)}, "action 0: '2.0' is not a number from -1 to 1"),
        ({"observations": np.zeros((NUM, 8), np.uint8)}, "not uint8 .time height width 3"),
    ],
)
def test_a_rollout_of_another_kind_is_refused_and_never_unpickled(more, why, tmp_path):
    with pytest.raises(UserError, match=why):
        read(rollout(tmp_path, **more))


def carla(folder: Path, files: int = 3, num: int = 10, aside: bool = False, clock: bool = True) -> Path:
    h5py = pytest.importorskip("h5py")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        targets = np.zeros((num, 28), np.float32)
        moment = number * num + np.arange(num)
        targets[:, 0], targets[:, 1], targets[:, 10], targets[:, 24] = moment / 100, 0.5, 36, 2
        targets[:, 21] = moment * 100 if clock else 0
        targets[:, 27] = 30 * (moment % 3 - 1) if aside else 0
        with h5py.File(folder / f"data_{number:05d}.h5", "w") as file:
            file["rgb"] = np.stack([picture(i) for i in moment])
            file["targets"] = targets
    return folder


@pytest.mark.parametrize("clock", [True, False])
def test_carla_is_a_fraction_to_the_right_over_all_files(clock, tmp_path):
    (record,) = read(carla(tmp_path / "log", clock=clock))
    np.testing.assert_allclose(record["steer"].values, -np.arange(NUM) / 100, rtol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(NUM) / 10, atol=1e-5)
    np.testing.assert_allclose(record["speed_mps"].values, 10.0, rtol=1e-6)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(NUM))
    assert np.array_equal(shades(record["picture"].values[np.array([29, 0, 15, 15])]), [29, 0, 15, 15])
    assert ("nominal" in record.about["clock"]) != clock


def test_of_several_cameras_of_carla_the_one_ahead_is_taken(tmp_path):
    (record,) = read(carla(tmp_path, aside=True))
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(1, NUM, 3))
    assert record.about["notes"] == ["20 of 30 moments are of cameras that look aside"]


def openbot(folder: Path, num: int = NUM, power: float = 255, crop: bool = True) -> Path:
    for place in ("images", "sensor_data"):
        (folder / place).mkdir(parents=True)
    frames, controls = ["timestamp[ns],frame"], ["timestamp[ns],leftCtrl,rightCtrl"]
    for i in range(num):
        time_ns = 10**15 + 100_000_000 * i
        (folder / "images" / f"{i}{'_crop' if crop else ''}.jpeg").write_bytes(encoded(i))
        frames.append(f"{time_ns},{i}")
        if i < num / 2:  # What is wished goes on being so.
            controls.append(f"{time_ns - 10**7},{power * (0.5 - i / 100)},{power * (0.5 + i / 100)}")
    (folder / "sensor_data/rgbFrames.txt").write_text("\n".join(frames))
    (folder / "sensor_data/ctrlLog.txt").write_text("\n".join(controls))
    (folder / "sensor_data/indicatorLog.txt").write_text(f"timestamp[ns],signal\n{10**15 + 10**9},-1\n")
    return folder


@pytest.mark.parametrize("power", [255, 1])
@pytest.mark.parametrize("crop", [True, False])
def test_openbot_turns_left_when_its_right_side_is_faster(power, crop, tmp_path):
    (record,) = read(openbot(tmp_path, power=power, crop=crop))
    np.testing.assert_allclose(record["steer"].values, np.minimum(np.arange(NUM), 14) / 100, atol=1e-6)
    np.testing.assert_allclose(record["throttle"].values, 0.5, atol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(NUM) / 10, atol=1e-6)
    assert record["command"].values.tolist() == [0] * 10 + [-1] * 20
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(NUM))
