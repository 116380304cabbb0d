"""What README and docs/ tell a reader to type is typed here, in a folder of its own."""

import io
import json
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import warnings
import wave
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from steersman.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
SHORT = {
    "quickstart": "--episodes 4 --steps 6 --tracks 1",
    "record": "--episodes 3 --max-steps 60",
    "train steer --data": "--training.steps 4",
    "train steer-frame --data": "--training.steps 4",
    "train steer": "--training.steps 4 --source.episodes 4 --source.world.max-steps 80",
    "train pendulum --run": "--training.steps 4 --source.episodes 12",
    "train digits": "--training.steps 4",
    "train echo --run runs/echo": "--training.steps 4",
    "doctor": "",
    "train echo": "--training.steps 4",
    "train forecast": "--training.steps 4",
    "train classify-text": "--training.steps 4",
    "train listen": "--training.steps 4",
    "train glance": "--training.steps 4 --core.hidden 8",
    "train song": "--training.steps 4 --core.hidden 8 --source.made 8 --keys 1",
    "compose": "",
    "train draw": "--training.steps 4 --core.hidden 8",
    "draw": "",
    "train caption": "--training.steps 4 --encoder.weights none --encoder.blocks 1 --encoder.pixels.height 32 "
    "--encoder.pixels.width 32 --vocabularies.min-count 1",
    "train vqa": "--training.steps 4",
    "train narrate": "--training.steps 4 --source.films 20 --source.test 3 --source.frames 3",
    "tell": "",
    "train count": "--training.steps 4",
    "train diagnose": "--training.steps 4",
    "train glucose": "--training.steps 4 --source.days 3 --core.hidden 8",
    "train market": "--training.steps 4 --core.hidden 8",
    "train ticks": "--training.steps 4 --core.hidden 8",
    "backtest": "",
    "predict": "",
    "train chars": "--training.steps 4 --core.hidden 16",
    "sample": "--length 20",
    "train translate": "--training.steps 4 --encoder.core.core.hidden 16 --decoder.core.hidden 16 --split.test 0.1",
    "translate": "",
    "train pendulum.py:pendulum": "--training.steps 4",
    "drive": "--tracks 1 --world.max-steps 40",
    "evaluate": "",
    "inspect": "",
    "convert": "",
    "challenge": "",
    "compare": "--steps 3 --seeds 1",
    "explain": "",
    "recipes": "",
    "export": "",
    "live": "--port 0 --no-open",
}
"""What makes each command short; it is otherwise run as it stands."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def commands(page: str) -> list[str]:
    lines = (line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    # The command that most others need, so that they can run in any order.
    drives = "record car-racing --episodes 4 --max-steps 80"
    subprocess.run([sys.executable, "-m", "steersman", *drives.split()], cwd=folder, check=True)
    return folder


@contextmanager
def serving(words: list[str], folder: Path):
    """A server as a reader starts it, until Ctrl-C; the address that it prints."""
    command = [sys.executable, "-m", "steersman", *words, *shlex.split(SHORT["live"])]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().removeprefix("live: ").strip()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


@contextmanager
def typed(folder: Path, given: str = ""):
    """What is run here as a reader's own process would run it; PyTorch is imported once for all."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.chdir(folder)
        patch.setenv("BROWSER", "true")  # `--watch` opens a page.
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        yield


def execute(code: str, folder: Path) -> None:
    with typed(folder):
        exec(compile(code, "a reader's", "exec"), {"__name__": "__main__"})


def run(line: str, folder: Path) -> None:
    words = shlex.split(line)
    if words[0] in ("make", "git", "cd", "."):
        targets = (ROOT / "Makefile").read_text()
        assert words[0] != "make" or f"\n{words[1]}:" in targets, line
        return
    given = None
    if words[0] == "echo":
        given, _, *words = words[1:]
    elif words[-2] == "<":
        *words, _, file = words
        given = (folder / file).read_text()
    assert words[0] == "steersman", line
    key = next((k for k in SHORT if " ".join(words[1:]).startswith(k)), None)
    assert key is not None, f"{line}: say in SHORT how to run it quickly"
    short = shlex.split(SHORT[key])
    if words[1] == "live":
        with serving(words[1:], folder) as address:
            assert address.startswith("http://127.0.0.1:")
        return
    # That the command itself starts, other tests see to.
    with typed(folder, given or ""):
        main([*words[1:], *short])


def test_commands_and_code_of_the_readme_run(place, shared_or_own):
    for line in commands("README.md"):
        run(shared_or_own(line), place)
    for code in blocks("README.md", "python"):
        execute(code, place)


def test_the_recipe_of_the_documentation_trains(place):
    own, *rest = blocks("docs/your-own-recipe.md", "python")
    (place / "pendulum.py").write_text(own)
    for line in commands("docs/your-own-recipe.md"):
        if "--core.hidden" not in line:
            run(line, place)
    for code in rest:
        subprocess.run([sys.executable, "-c", code], cwd=place, check=True)  # It makes kinds of its own.


def test_make_installs_what_the_readme_shows_and_says_what_comes_next():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    everything = set(re.findall(r"[a-z]+", extras["all"][0].partition("[")[2]))
    assert everything == {"sim", "digits", "text", "logs", "tensorboard", "live"}
    assert everything | {"all", "export", "mnist", "music", "sight", "bench", "fuzz", "peers", "dev"} >= set(extras)
    said = subprocess.run(
        ["make", "-n", "-W", "pyproject.toml", "install"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 'pip install --quiet --editable ".[all]"' in said
    assert "PIP_CONSTRAINT=constraints.txt" in said
    assert said.index("1.6 GB") < said.index("pip install") < said.index(". .venv/bin/activate")
    readme = (ROOT / "README.md").read_text()
    assert commands("README.md")[:2] == ["git clone REPOSITORY steersman", "cd steersman"]
    assert readme.index(". .venv/bin/activate") < readme.index("\nsteersman drive steer --tracks 3")


@pytest.fixture
def shared_or_own(place):
    """Puts a small drive of the reader's own in the place of LOG, and a text in that of TEXT."""
    text = place / "novel.txt"
    text.write_text("Once there was. The sea went on.\n" * 200)
    for name, order in (("source", 1), ("target", -1)):
        lines = (f"{i} {i + 1} times"[::order] for i in range(60))
        (place / f"{name}.txt").write_text("\n".join(lines))
    drive = str(place / "drives" / "car-racing-80-steps-100000")
    own = {"LOG": drive, "TEXT": str(text), "SOURCE": "source.txt", "TARGET": "target.txt"}
    return lambda line: " ".join(own.get(word, word) for word in line.split(" "))


def test_commands_and_code_on_words_run(place, shared_or_own):
    for line in commands("docs/words.md"):
        run(shared_or_own(line), place)
    for code in blocks("docs/words.md", "python"):
        execute(code, place)


def sensors(place: Path) -> None:
    hours = (f"2024-01-{1 + i // 24:02d} {i % 24:02d}:00,{i % 7},{40 + i % 24},{i % 5 == 0}" for i in range(400))
    (place / "sensors.csv").write_text("\n".join(["time,temperature_c,load_kw,holiday", *hours]) + "\n")
    moods = (json.dumps({"text": f"it was {word}", "sentiment": word}) for word in ("good", "bad") * 20)
    (place / "reviews.jsonl").write_text("\n".join(moods) + "\n")
    (place / "new.jsonl").write_text('{"text": "so good"}\n')


def test_commands_and_code_on_tables_run(place):
    sensors(place)
    for line in commands("docs/tables.md"):
        run(line, place)
    for code in blocks("docs/tables.md", "python"):
        execute(code, place)


def test_commands_and_code_on_forecasting_run(place):
    sensors(place)
    for line in commands("docs/forecasting.md"):
        run(line, place)
    for code in blocks("docs/forecasting.md", "python"):
        execute(code, place)


def test_commands_and_code_on_sound_run(place):
    rng = np.random.default_rng(0)
    for folder in ("sounds/yes", "sounds/no", "new"):
        (place / folder).mkdir(parents=True)
        for name in ("anna_1", "anna_2", "bo_1", "bo_2", "cy_1", "cy_2"):
            with wave.open(str(place / folder / f"{name}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(rng.integers(-9000, 9000, 2000).astype("<i2").tobytes())
    for line in commands("docs/sound.md"):
        run(line, place)
    for code in blocks("docs/sound.md", "python"):
        execute(code, place)


def square(folder: Path) -> None:
    """A film of a camera that stands still, and how many people are in each frame."""
    from steersman.sources.counted import Counted

    (record,) = Counted(films=3, frames=40, height=48, width=64).read()[:1]
    folder.mkdir()
    with av.open(str(folder / "film.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in record["picture"].values:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    counts = np.asarray(record["people"].values).astype(int)
    rows = "".join(f"{number},{people}\n" for number, people in enumerate(counts))
    (folder / "counts.csv").write_text("frame,people\n" + rows)


def test_commands_and_code_on_still_pictures_run(place):
    (place / "mnist").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (60, 28, 28)).astype(np.uint8)
    np.savez(
        place / "mnist" / "digits.npz",
        x_train=pictures,
        y_train=np.arange(60) % 10,
        x_test=pictures[:10],
        y_test=np.arange(10),
    )
    captions, questions = ["image,caption"], ["image,question,answer"]
    for number in range(20):
        Image.fromarray(pictures[number]).save(place / f"{number}.png")
        captions += [f"{number}.png,a dog"] * 2
        questions.append(f"{number}.png,is it a dog?,{'yes' if number % 2 else 'no'}")
    Image.fromarray(pictures[0]).save(place / "holiday.jpg")
    (place / "captions.csv").write_text("\n".join(captions))
    (place / "questions.csv").write_text("\n".join(questions))
    square(place / "square")
    for line in commands("docs/pictures.md"):
        run(line, place)
    for code in blocks("docs/pictures.md", "python"):
        execute(code, place)
    assert all((place / name).exists() for name in ("glimpses.webp", "strokes.webp", "drawings.webp"))


def test_commands_on_music_run(place):
    for line in commands("docs/music.md"):
        run(line, place)
    assert (place / "new.mid").read_bytes().startswith(b"MThd")


def test_commands_and_code_on_a_table_of_patients_run(place):
    from steersman.sources.synthetic import Patients

    signs, outcomes = ["patient,time_h,heart_rate,systolic,lactate,gcs,age,sex"], ["patient,outcome"]
    for number, record in enumerate(Patients(series=40).read()):
        columns = [record[name].values for name in ("time_h", "HR", "MAP", "Lactate", "GCS", "age_years", "sex")]
        outcomes.append(f"{number},{record['outcome'].values[0]}")
        signs += [
            ",".join([str(number), *("" if cell != cell else str(cell) for cell in row)])
            for row in zip(*columns, strict=True)
        ]
    for name, lines in (("signs", signs), ("outcomes", outcomes)):
        (place / f"{name}.csv").write_text("\n".join(lines) + "\n")
    for code in blocks("docs/diagnosis.md", "python"):
        execute(code, place)
    (place / "new.csv").write_text("\n".join(signs) + "\n")
    (place / "later.csv").write_text((place / "patients.csv").read_text())
    for line in commands("docs/diagnosis.md"):
        run(line, place)
    assert (place / "chances.csv").read_text().startswith("record,time_s,outcome,p(died),p(survived)")


def test_commands_and_code_on_worlds_run(place):
    for line in commands("docs/worlds.md"):
        run(line, place)
    for code in blocks("docs/worlds.md", "python"):
        execute(code, place)


def test_commands_on_looking_at_a_log_run(place, shared_or_own):
    (place / "TRUTH.csv").write_text("frame_id,steering_angle,public\n1,0.5,1\n2,-0.5,0\n")
    (place / "SUBMISSION.csv").write_text("frame_id,steering_angle\n1,0.4\n2,-0.4\n")
    (place / "more.txt").write_text("drives/car-racing-80-steps-100000\n")
    for line in commands("docs/inspect.md"):
        # These drives are short.
        run(shared_or_own(line).replace("10:120", "0:1.2").replace("60:65", "0.4:0.6"), place)


def test_commands_and_code_on_export_run(place):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    for line in commands("docs/export.md"):
        run(line, place)
    for code in blocks("docs/export.md", "python"):
        execute(code, place)


def test_commands_and_code_on_live_run(place):
    pytest.importorskip("starlette", reason="the extra `live` is not installed")
    for line in commands("docs/live.md"):
        run(line, place)
    with serving(["live", "steer"], place) as address:
        for code in blocks("docs/live.md", "python"):
            own = code.replace("http://127.0.0.1:8765/?token=TOKEN", address)
            assert own != code
            execute(own, place)


def test_commands_on_the_doctor_run(place):
    for line in commands("docs/doctor.md"):
        if "--selftest" not in line:
            run(line, place)


def test_code_on_cores_runs(place):
    for code in blocks("docs/cores.md", "python") + blocks("docs/heads.md", "python"):
        subprocess.run([sys.executable, "-c", code], cwd=place, check=True)  # It makes kinds of its own.
