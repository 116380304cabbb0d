"""A table is described as it is, and is never taken for a text or a drive."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.logs.table_page import column_tables, table_report
from steersman.logs.tables import inspect_tables
from steersman.sources import are_tables, parallel, read


def sensors(path, rows: int = 300):
    rng = np.random.default_rng(0)
    load = 40 + 10 * np.sin(np.arange(rows) * 2 * np.pi / 24) + rng.normal(0, 0.5, rows)
    hours = np.arange(rows) + 30 * (np.arange(rows) > 200)
    lines = ["when,temp_c,load_kw,soon,same,near,flat,state"]
    for i in range(rows):
        temp = "" if i % 10 == 0 else f"{rng.normal(15, 3):.2f}"
        when = np.datetime64("2024-01-01T00:00:00") + hours[i] * np.timedelta64(3600, "s")
        near = load[i] * 2 + rng.normal(0, 0.01)
        cells = (load[i], load[min(i + 2, rows - 1)], load[i], near)
        lines.append(f"{when},{temp},{','.join(f'{c:.3f}' for c in cells)},3,{'on' if i % 3 else 'off'}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_what_was_planted_in_a_table_is_found(tmp_path):
    inspection = inspect_tables([sensors(tmp_path / "s.csv")], "load_kw")
    found = inspection.found
    assert (found["rows"], found["series"], found["num_gaps"], found["period_s"]) == (300, 1, 1, 3600)
    assert found["gaps"][0]["seconds"] == 31 * 3600
    assert found["uneven"] == pytest.approx(1 / 299)
    load, temp = found["columns"]["load_kw"], found["columns"]["temp_c"]
    assert (load["unit"], load["season"], load["missing"]) == ("kw", 24, 0)
    assert (temp["missing"], temp["season"], temp["kind"]) == (30, None, "numbers")
    assert found["classes"]["state"]["rows"] == {"off": 100, "on": 200}
    said = "\n".join(found["warnings"])
    assert "soon holds what load_kw will be 2 rows later: --leave-out soon" in said
    assert "same holds the same as load_kw: --leave-out same" in said
    assert "flat is 3 throughout" in said
    assert "temp_c" not in said
    assert ["near" in q and "load_kw" in q for q in found["questions"]] == [True]
    json.loads(json.dumps(found, allow_nan=False))
    assert "<td>load_kw</td><td>numbers</td>" in inspection._repr_html_()
    assert len(column_tables(found)) == 2
    assert [s.title for s in table_report(inspection).sections] == ["Findings", "Columns", "Over time"]


def test_series_are_told_apart_where_times_repeat_and_classes_are_counted_by_series(tmp_path):
    lines = [f"{k},{t},{k == 'b'},{t * 0.37 % 1:.2f}" for t in range(60) for k in "abc"]
    (tmp_path / "m.csv").write_text("\n".join(["machine,t,broken,v", *lines]).replace("True", "yes"))
    found = inspect_tables([str(tmp_path / "m.csv")]).found
    assert (found["series_column"], found["series"], found["longest"]) == ("machine", 3, 60)
    assert found["classes"]["broken"]["series"] == {"False": 2, "yes": 1}
    assert any("--series machine" in text for text in found["warnings"])
    (tmp_path / "u.csv").write_text("t,v\n1,2\n3,4\n2,5\n")
    assert "goes back in row 3" in inspect_tables([str(tmp_path / "u.csv")]).found["warnings"][0]


def test_a_column_that_tells_the_class_is_named(tmp_path):
    rows = [f"{i},{i % 3},{'abc'[i % 3]}" for i in range(90)]
    (tmp_path / "t.csv").write_text("\n".join(["v,code,label", *rows]))
    assert any(
        "code alone tells label" in w for w in inspect_tables([str(tmp_path / "t.csv")], "label").found["warnings"]
    )


def test_the_command_takes_tables_and_tells_their_options_from_those_of_logs(tmp_path, capsys):
    path = sensors(tmp_path / "s.csv", 60)
    main(["inspect", path, "--json"])
    assert json.loads(capsys.readouterr().out)["format"] == "table"
    for arguments, said in (
        (["--target", "load_kv"], "did you mean 'load_kw'"),
        (["--keep", "1:2"], "chooses from recordings"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["inspect", path, *arguments])
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".npz", ".csv.gz"])
def test_a_table_is_never_taken_for_a_text(tmp_path, ending):
    import gzip

    columns = {"a": np.arange(9.0), "b": np.arange(9.0) ** 2}
    path = tmp_path / f"t{ending}"
    text = "\n".join(["a,b", *(f"{a},{b}" for a, b in zip(*columns.values(), strict=True))]) + "\n"
    if ending == ".parquet":
        parquet.write_table(pa.table(columns), path)
    elif ending == ".npz":
        np.savez(path, **columns)
    else:
        text = text.replace(",", "\t") if ending == ".tsv" else text
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    assert are_tables([path])
    for reader in (read, lambda place: parallel.read([str(place)])):
        with pytest.raises(UserError, match=r"table.*steersman train forecast --data .*\?as=text"):
            reader(path)
    assert not are_tables([f"{path}?as=text"])
    (record,) = read(f"{path}?as=text")
    assert record.about["format"] == "text"
    if ending == ".tsv":
        assert len(parallel.read([f"{path}?as=text"])) == 10
