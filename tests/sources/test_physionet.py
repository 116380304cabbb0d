"""Sets of PhysioNet 2012: what is read of a patient's text, and what is refused."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from steersman.errors import UserError
from steersman.recipes.diagnose.recipes import diagnose
from steersman.sources import physionet
from steersman.training.recipe import read_records

FIRST = """00:00,RecordID,{id}
00:00,Age,{age}
00:00,Gender,{gender}
00:00,Height,-1
00:00,ICUType,3
00:00,Weight,70.5
"""


def patient(folder: Path, number: int, rows: str, age: int = 60, gender: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    first = FIRST.format(id=number, age=age, gender=gender)
    (folder / f"{number}.txt").write_text(f"{physionet.HEADER}\n{first}{rows}")


@pytest.fixture
def sets(tmp_path):
    patient(tmp_path / "set-a", 1, "00:07,HR,73\n00:07,Temp,-1\n01:30,HR,77\n01:30,Urine,60\n01:30,Urine,40\n")
    patient(tmp_path / "set-a", 2, "02:00,pH,735\n02:00,Temp,98.6\n03:00,MAP,0\n03:00,FiO2,50\n", gender=-1)
    (tmp_path / "Outcomes-a.txt").write_text(
        "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n1,6,1,5,-1,0\n2,16,8,8,3,1\n"
    )
    return tmp_path


def test_a_patient_is_a_record_on_the_clock_of_what_was_measured(sets):
    first, second = physionet.read(sets / "set-a")
    assert [first.name, second.name] == ["1", "2"]
    np.testing.assert_allclose(first["time_h"].values, [7 / 60, 1.5])
    np.testing.assert_array_equal(first["HR"].values, [73, 77])
    np.testing.assert_array_equal(first["Urine"].values, [np.nan, 100])  # Two bags at one moment.
    assert np.isnan(first["Temp"].values).all()  # -1 is missing.
    assert np.isnan(first["height_cm"].values).all()
    assert set(first["admission_weight_kg"].values) == {70.5}
    assert np.isnan(first["Weight"].values).all()
    assert list(first["unit"].values) == ["medical"] * 2
    assert set(second["sex"].values) == {""}
    assert {r["outcome"].values[0] for r in (first, second)} == {"survived", "died"}
    assert second.about["SOFA"] == 8


def test_what_was_mistyped_is_mended_and_what_nobody_has_is_missing(sets):
    second = physionet.read(sets / "set-a")[1]
    assert second["pH"].values[0] == pytest.approx(7.35)
    assert second["Temp"].values[0] == pytest.approx(37.0)
    assert second["FiO2"].values[-1] == 0.5
    assert np.isnan(second["MAP"].values).all()


def test_an_archive_holds_sets_of_which_one_is_named(sets):
    for letter in "bc":
        patient(sets / f"set-{letter}", 3, "00:10,HR,60\n")
    with tarfile.open(sets / "all.tar.xz", "w:xz") as archive:
        for name in ("set-a", "set-b", "Outcomes-a.txt"):
            archive.add(sets / name, name)
    inside, outside = physionet.read(sets / "all.tar.xz", "a"), physionet.read(sets / "set-a")
    for one, other in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(one["HR"].values, other["HR"].values)
    assert "outcome" not in physionet.read(sets / "all.tar.xz", "set-b")[0].streams
    with pytest.raises(UserError, match=r"holds the sets a, b; name one: .*\?set=a"):
        physionet.read(sets / "all.tar.xz")
    with pytest.raises(UserError, match="has no set z; it has a, b"):
        physionet.read(sets / "all.tar.xz", "z")
    assert len(read_records(diagnose(outside), [f"{sets / 'all.tar.xz'}?set=a"])) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("00:09,HR\n", r"1.txt, row 8: '00:09,HR' is not hours:minutes,sign,number"),
        ("00:09,HR,fast\n", r"1.txt, row 8: '00:09,HR,fast' is not"),
        ("later,HR,60\n", r"1.txt, row 8: 'later,HR,60' is not"),
        ("00:09,Mood,3\n", r"1.txt, row 8: 'Mood' is no sign that is known"),
    ],
)
def test_a_row_that_is_none_is_named(sets, row, said):
    patient(sets / "set-a", 1, row)
    with pytest.raises(UserError, match=said):
        physionet.read(sets / "set-a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RecordID,Death\n1,0\n", "no columns RecordID and In-hospital_death"),
        ("RecordID,In-hospital_death\n1,0\n2,7\n", "row 3: In-hospital_death is 7, neither 0 nor 1"),
        ("RecordID,In-hospital_death\n1,0\n", "the outcomes lack patient 2"),
        ("RecordID,In-hospital_death\n1,0,1\n2,0\n", "row 2"),
    ],
)
def test_outcomes_that_do_not_fit_are_refused(sets, text, said):
    (sets / "Outcomes-a.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        physionet.read(sets / "set-a")


def test_what_is_no_set_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=r"a\.tar can't be read.*unpack it"):
        physionet.read(tmp_path / "a.tar")
    with pytest.raises(UserError, match="holds no patient"):
        physionet.read(tmp_path)
    assert not physionet.detect(tmp_path)


def test_the_packed_sets_are_known(shared_data, tmp_path):
    with tarfile.open(shared_data("physionet2012") / "physionet2012_ab.tar.xz") as archive:
        first = next(m for m in archive if m.name.startswith("set-") and m.isfile())  # All of them take seconds.
        archive.extract(first, tmp_path, filter="data")
    (record,) = physionet.read(tmp_path / first.name.split("/")[0])
    assert len(record) > 10
    assert 40 < np.nanmean(record["HR"].values) < 140
