"""Challenge 2 is scored as its leaderboard was, and what can't be scored is named by file and line."""

import json
from pathlib import Path

import pytest

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.logs.challenge import score_submission

PUBLISHED = {"komanda": (0.04829, 0.05124), "rambo": (0.05788, 0.05598), "autumn": (0.04882, 0.04668)}
TRUTH = "frame_id,steering_angle,public\n11,0.5,1\n12,-0.5,0\n13,0.1,1\n"


@pytest.mark.parametrize("team", PUBLISHED)
def test_the_published_scores_come_out(shared_data, team, capsys):
    folder = shared_data("udacity_ch2_scores")
    main(["score", str(folder / "CH2_final_evaluation.csv"), str(folder / "submissions" / f"{team}.csv"), "--json"])
    scores = json.loads(capsys.readouterr().out)
    zero = scores["baselines"]["zero"]
    assert (round(scores["public"], 5), round(scores["private"], 5)) == PUBLISHED[team]
    assert (round(zero["public"], 5), round(zero["private"], 5)) == (0.20678, 0.20857)
    assert scores["frames"] == 5614


def files(folder: Path, submission: str | bytes, truth: str = TRUTH) -> tuple[Path, Path]:
    (folder / "truth.csv").write_text(truth)
    given = submission.encode() if isinstance(submission, str) else submission
    (folder / "said.csv").write_bytes(given)
    return folder / "truth.csv", folder / "said.csv"


def test_frames_are_matched_by_their_id_and_not_by_their_order(tmp_path, capsys):
    truth, said = files(tmp_path, "steering_angle, frame_id\n0.1,13\n-0.5,12\n0.8,11\n")
    scores = score_submission(truth, said)
    assert scores["private"] == 0
    assert scores["public"] == pytest.approx((0.3**2 / 2) ** 0.5)
    assert scores["rmse"] == pytest.approx((0.3**2 / 3) ** 0.5)
    assert scores["baselines"]["mean"]["rmse"] < scores["baselines"]["zero"]["rmse"]
    main(["score", str(truth), str(said)])
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "said.csv"


def test_a_part_without_frames_has_no_score(tmp_path):
    truth, said = files(tmp_path, "frame_id,steering_angle\n1,0.5\n", "frame_id,steering_angle,public\n1,0.5,1\n")
    scores = score_submission(truth, said)
    assert (scores["public"], scores["private"]) == (0, None)


HEADER = "frame_id,steering_angle\n"


@pytest.mark.parametrize(
    ("submission", "message"),
    [
        ("", "no column frame_id, steering_angle"),
        ("frame,angle\n11,1\n", "no column frame_id"),
        (HEADER, "holds no frames"),
        (HEADER + "11,0\n13,0\n", "lacks 1 of the 3 frames of .*the first: 12"),
        (HEADER + "11,0\n12,0\n13,0\n14,0\n", "1 frames that .*the first: 14"),
        (HEADER + "11,0\n12,0\n12,1\n13,0\n", "line 4 gives frame 12 a second time"),
        (HEADER + "11,0\n12,nan\n13,0\n", "line 3 has the steering_angle 'nan'"),
        (HEADER + "11,0\n12,inf\n13,0\n", "line 3 has the steering_angle 'inf'"),
        (HEADER + "11,0\n12,\n13,0\n", "line 3 has the steering_angle ''"),
        (HEADER + "1.1e1,0\n", "line 2 has the frame_id '1.1e1'"),
        (HEADER + "11,0,9\n", "line 2 has 3 columns"),
        (b"\xff\xfe\x00", "not a CSV"),
    ],
)
def test_what_cannot_be_scored_is_named(tmp_path, submission, message):
    with pytest.raises(UserError, match=message):
        score_submission(*files(tmp_path, submission))


def test_the_public_mark_is_one_or_zero(tmp_path):
    truth, said = files(tmp_path, HEADER + "0,0\n", "frame_id,steering_angle,public\n0,0,2\n")
    with pytest.raises(UserError, match="frame 0 has public 2"):
        score_submission(truth, said)


def test_a_missing_file_is_named(tmp_path):
    truth, _ = files(tmp_path, "")
    with pytest.raises(UserError, match=r"none\.csv can't be read"):
        score_submission(truth, tmp_path / "none.csv")
