"""Written music: MIDI and MusicXML, whole and broken, and what sounds at each step of it."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.errors import UserError
from steersman.sources.scores import Note, held, read_midi, read_music, read_xml, sampled, write_midi
from steersman.sources.songs import Songs, coded, steps_of, transposed

CHORD = [Note(0.0, 2.0, 48), Note(0.0, 1.0, 64), Note(1.0, 1.0, 65)]
# Format 1, 96 ticks a quarter; a track of tempi (one half way), then one with running status, a release as a note of
# velocity 0, an unknown message in the middle, and drums; written by hand from the specification.
BY_HAND = (
    b"MThd\0\0\0\6\0\1\0\2\0\x60"
    b"MTrk\0\0\0\x13\0\xff\x51\3\7\xa1\x20\x60\xff\x51\3\5\0\0\0\xff\x2f\0\0"
    b"MTrk\0\0\0\x2a"
    b"\0\x90\x3c\x40\0\x40\x40\0\x99\x23\x40"  # C and E, a drum
    b"\0\xf0\2\1\xf7"  # a message of the maker's own
    b"\x60\x90\x3c\0\0\x3e\x40"  # C ends, D begins, running
    b"\x60\x80\x40\0\0\x3e\0"  # both end
    b"\x81\x40\xff\x2f\0"
    b"\0\0\0\0\0\0\0\0\0\0"
)
SCORE = """<?xml version="1.0"?>
<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 2.0 Partwise//EN" "none.dtd">
<score-partwise><part id="P1"><measure><attributes><divisions>2</divisions></attributes>
<note><pitch><step>C</step><octave>4</octave></pitch><duration>2</duration></note>
<note><chord/><pitch><step>E</step><alter>-1</alter><octave>4</octave></pitch><duration>4</duration></note>
<note><rest/><duration>2</duration></note>
<note><grace/><pitch><step>D</step><octave>4</octave></pitch></note>
<backup><duration>2</duration></backup><forward><duration>1</duration></forward>
<note><pitch><step>G</step><octave>3</octave></pitch><duration>1</duration></note>
</measure></part></score-partwise>"""


def test_a_midi_file_written_by_hand_is_read():
    music = read_midi(BY_HAND)
    assert music.notes == [Note(0.0, 1.0, 60), Note(0.0, 2.0, 64), Note(1.0, 1.0, 62)]
    assert music.parts == 1


def test_what_is_written_is_read_again():
    assert read_midi(write_midi(CHORD)).notes == sorted(CHORD)


def test_a_score_is_read_with_its_chords_and_voices(tmp_path):
    want = [Note(0.0, 1.0, 60), Note(0.0, 2.0, 63), Note(1.5, 0.5, 55)]
    assert read_xml(SCORE.encode()).notes == want
    with zipfile.ZipFile(tmp_path / "a.mxl", "w") as archive:
        archive.writestr("META-INF/container.xml", "<container/>")
        archive.writestr("a.xml", SCORE)
    assert read_music(tmp_path / "a.mxl").notes == want


def test_what_sounds_at_each_step_and_the_way_back():
    steps = sampled(CHORD, 0.5)
    assert steps == [(48, 64), (48, 64), (48, 65), (48, 65)]
    assert held(steps, 0.5) == sorted(CHORD)
    assert sampled([Note(0.25, 0.5, 60), Note(0.9, 0.6, 62)], 1.0) == [(), (62,)]


def test_symbols_are_steps_and_back():
    steps = [(48, 64), (), (50,)]
    assert steps_of(coded(steps).tolist()) == steps


def test_a_piece_in_another_key_is_as_many_half_tones_higher():
    (record,) = Songs(made=1).read()
    before, after = (steps_of(np.asarray(r["next_note"].values).tolist()) for r in (record, transposed(record, 3)))
    assert [tuple(p + 3 for p in pitches) for pitches in before] == after
    assert transposed(record, 100) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(BY_HAND)))
def test_whatever_is_in_a_midi_file_is_read_or_refused(data, place):
    for whole in (data, BY_HAND[:place] + data, BY_HAND[:22] + data):
        try:
            music = read_midi(whole)
        except ValueError:
            continue
        assert all(note.length > 0 and 0 <= note.pitch < 128 for note in music.notes)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.mid", b"RIFF nothing", "does not begin as a MIDI file"),
        ("a.mid", BY_HAND[:12] + b"\xe7\x28" + BY_HAND[14:], "frames of a film"),
        ("a.mid", BY_HAND[:14], "holds no note"),
        ("a.xml", b"<html/>", "a html, not a score-partwise"),
        ("a.xml", b"<score-partwise", "can't be read as written music"),
        ("a.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><score-partwise/>', "defines entities"),
        ("a.xml", SCORE.replace("<octave>4", "<octave>x").encode(), "can't be read as written music"),
        ("a.xml", SCORE.replace("<step>C", "<step>H").encode(), "can't be read as written music"),
        ("a.xml", SCORE.replace("<divisions>2", "<divisions>0").encode(), "not above 0"),
        ("a.xml", SCORE.replace("<duration>4", "<duration>nan").encode(), "it lasts over"),
        ("a.mxl", b"PK\3\4nothing", "archive is damaged"),
    ],
)
def test_what_is_no_music_is_said_in_a_sentence(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as refused:
        Songs().open([str(tmp_path)])
    assert "\n" not in str(refused.value)


def test_one_broken_file_of_several_is_left_out_and_said(tmp_path, capsys):
    (tmp_path / "a.mid").write_bytes(write_midi(CHORD))
    (tmp_path / "b.mid").write_bytes(b"no")
    records = Songs().open([str(tmp_path)])
    assert [record.name for record in records] == ["a"]
    assert "1 file left out, the first:" in " ".join(capsys.readouterr().err.split())
