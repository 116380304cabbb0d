"""Sounds: what is listed, what is decoded, what is refused."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from steersman import sources
from steersman.errors import UserError
from steersman.sources import sound
from steersman.sources.sound import Sounds, decoded, read, samples

RATE = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 4) / RATE)).astype(np.float32)


def write_wav(path: Path, values=TONE, width: int = 2, rate: int = RATE) -> Path:
    """(sample) or (sample channel) as whole numbers of so many bytes."""
    values = np.atleast_2d(np.asarray(values, float).T).T
    whole = {
        1: lambda: (values * 127 + 128).astype("u1").tobytes(),
        2: lambda: (values * 32767).astype("<i2").tobytes(),
        3: lambda: (values * (2**31 - 1)).astype("<i4").view("u1").reshape(-1, 4)[:, 1:].tobytes(),
        4: lambda: (values * (2**31 - 1)).astype("<i4").tobytes(),
    }[width]()
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((values.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(whole)
    return path


def write_coded(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(TONE[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        context = stream.codec_context
        resampler = av.AudioResampler(context.format.name, "mono", RATE, context.frame_size or 1024)
        for part in (frame, None):
            for piece in resampler.resample(part):
                container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_of_any_width_are_the_same_sound(tmp_path, width):
    found = decoded(write_wav(tmp_path / "a.wav", width=width), RATE)
    np.testing.assert_allclose(found, TONE, atol=0.02 if width == 1 else 1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("codec", "ending", "off"), [("flac", "flac", 1e-4), ("pcm_f32le", "wav", 1e-6), ("libmp3lame", "mp3", 0.2)]
)
def test_other_formats_are_the_same_sound(tmp_path, codec, ending, off):
    found = decoded(write_coded(tmp_path / f"a.{ending}", codec), RATE)
    np.testing.assert_allclose(found[: len(TONE)], TONE[: len(found)], atol=off)


def test_channels_become_their_mean_and_another_rate_the_same_tone(tmp_path):
    two = write_wav(tmp_path / "two.wav", np.stack([TONE, 0 * TONE], 1))
    np.testing.assert_allclose(decoded(two, RATE), TONE / 2, atol=1e-4)
    half = decoded(write_wav(tmp_path / "a.wav"), 8_000)
    assert len(half) == len(TONE) // 2
    np.testing.assert_allclose(half[100:-100], TONE[::2][100:-100], atol=0.01)


def test_a_wrong_ending_does_not_matter_and_a_file_cut_short_has_what_is_left(tmp_path):
    whole = write_wav(tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.mp3").write_bytes(whole)
    np.testing.assert_allclose(decoded(tmp_path / "a.mp3", RATE), TONE, atol=1e-4)
    (tmp_path / "b.wav").write_bytes(whole[: len(whole) // 2])
    assert 0 < len(decoded(tmp_path / "b.wav", RATE)) < len(TONE)


def test_what_is_no_sound_is_refused_by_name(tmp_path, monkeypatch):
    whole = write_wav(tmp_path / "a.wav").read_bytes()
    for name, content, said in (
        ("text.wav", b"hello", "no sound of a known format"),
        ("list.wav", b"#EXTM3U\n/etc/passwd\n", "no sound of a known format"),
        ("head.wav", whole[:30], "can't be decoded"),
        ("flac.flac", b"fLaC" + bytes(60), "can't be decoded"),
        ("codec.wav", whole[:20] + b"\x5e\x01" + whole[22:], "can't be decoded"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} .*{said}.*leave it out"):
            decoded(tmp_path / name, RATE)
    with pytest.raises(UserError, match=r"none\.wav holds no sound: it has 0 samples"):
        decoded(write_wav(tmp_path / "none.wav", TONE[:0]), RATE)
    write_wav(tmp_path / "nan.wav")
    monkeypatch.setattr(sound, "MOST_S", 0.1)
    with pytest.raises(UserError, match=r"a\.wav is longer than"):
        decoded(tmp_path / "a.wav", RATE)


def test_samples_that_are_no_numbers_are_refused(tmp_path):
    file = write_coded(tmp_path / "a.wav", "pcm_f32le")
    whole = bytearray(file.read_bytes())
    whole[-4:] = np.array([np.nan], "<f4").tobytes()
    file.write_bytes(whole)
    with pytest.raises(UserError, match="no numbers"):
        decoded(file, RATE)


def test_a_folder_of_sounds_is_listed_and_none_decoded(tmp_path, monkeypatch):
    for name in ("yes/a.wav", "yes/b.flac", "no/c.MP3", "no/.hidden", "no/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(sound, "decoded", None)
    records = Sounds().open([str(tmp_path)])
    assert [(r.name, r.about["folder"]) for r in records] == [
        ("no/c.MP3", "no"),
        ("yes/a.wav", "yes"),
        ("yes/b.flac", "yes"),
    ]


def test_names_tell_by_a_pattern(tmp_path):
    for name in ("7_anna_12.wav", "3_bo_0.wav", "other.wav"):
        write_wav(tmp_path / "take_1" / name)
    told = {r.name: r.about for r in read(tmp_path, "{digit}_{speaker}_{n}.wav")}
    assert {k: told["take_1/7_anna_12.wav"][k] for k in ("digit", "speaker", "n")} == {
        "digit": "7",
        "speaker": "anna",
        "n": "12",
    }
    assert "digit" not in told["take_1/other.wav"]
    assert {r.about["take"] for r in read(tmp_path, "take_{take}/{rest}")} == {"1"}
    for wrong in ("digit", "{a}_{a}", "{a", "{1}"):
        with pytest.raises(UserError, match="should name what is told"):
            read(tmp_path, wrong)


def test_a_table_tells_file_and_label(tmp_path):
    write_wav(tmp_path / "sounds" / "a.wav")
    table = tmp_path / "labels.csv"
    table.write_text("file,label,speaker\nsounds/a.wav,3,anna\n")
    (record,) = read(table)
    assert (record.about["label"], record.about["speaker"]) == ("3", "anna")
    assert len(samples(record, RATE)) == len(TONE)
    table.write_text("file,label\nsounds/a.wav,3\nsounds/b.wav,4\n")
    with pytest.raises(UserError, match=r"labels\.csv, row 2: there is no file 'sounds/b\.wav'"):
        read(table)
    table.write_text(f"file,label\n{write_wav(tmp_path.parent / 'out.wav')},3\n")
    with pytest.raises(UserError, match="leads out of"):
        read(table)
    table.write_text("name,label\na.wav,3\n")
    with pytest.raises(UserError, match="no column that names files"):
        read(table)


def test_sounds_given_as_a_log_are_known_for_what_they_are(tmp_path):
    file = write_wav(tmp_path / "yes" / "a.wav")
    for path in (tmp_path, file):
        with pytest.raises(UserError, match=r"sound.*steersman train listen --data"):
            sources.read(path)


def test_what_holds_no_sound_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no sound"):
        read(tmp_path)
    with pytest.raises(UserError, match="there is no"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="no data of this recipe's own"):
        Sounds().read()
