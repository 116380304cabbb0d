"""Scores of a run whose camera has faults, and of data that it was trained on."""

import pytest
from small import fitted, write_log

from steersman.__main__ import main
from steersman.data.camera import CameraFaults
from steersman.errors import UserError
from steersman.evaluation.report import report_run


def test_a_spoiled_picture_costs_and_the_page_says_what_was_wrong(tmp_path):
    run = fitted("steer-frame", tmp_path)
    clear, dark = (report_run(run, faults=faults) for faults in (None, CameraFaults(light=0.2, noise=60)))
    assert dark["rmse"] != clear["rmse"]
    assert dark["data"] == "records kept apart from training, the camera disturbed (noise 60, light 0.2)"
    with pytest.raises(UserError, match="holds no pictures"):
        report_run(fitted("echo", tmp_path / "echo"), faults=CameraFaults(noise=1))


def test_a_run_scored_on_what_it_was_trained_on_is_told_so(tmp_path, capsys):
    log = write_log(tmp_path / "log", steps=200)
    train = ["train", "steer-frame", "--data", str(log), "--run", str(tmp_path / "run"), "--training.steps", "2"]
    main([*train, "--training.precision", "float32"])
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--data", f"{log}?records=0", "--disturb.drop", "0.5"])
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    assert "was trained on parts of it" in out + err
    assert (tmp_path / "run" / "on").exists()
    assert "disturbed-drop-0.5" in out
