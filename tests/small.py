"""The package's recipes made small enough to be trained in a test, and what tests do with them."""

import json
import sys
import tempfile
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from steersman.data.augment import Mirror
from steersman.data.batches import Batches, Lanes, Ragged, Windows
from steersman.data.examples import Example, raw_steps
from steersman.data.inputs import Inputs
from steersman.data.pairs import ByLength, padded
from steersman.data.records import Record, Stream
from steersman.nn.cores import GRU, LSTM, RNN, Bidirectional, Memoryless, Pooled, Stack, Window
from steersman.nn.drawing import Sketch
from steersman.nn.encoder_decoder import Decoder, Readout, TextEncoder
from steersman.nn.encoders import Joined
from steersman.nn.foreground import Foreground
from steersman.nn.glimpses import Glimpse, Sensor
from steersman.nn.picture_sources import Conditioned, Grid, PretrainedGrid, Stepwise
from steersman.nn.pictures import Conv, Picture
from steersman.nn.pretrained import Pretrained
from steersman.recipes import RECIPES
from steersman.recipes.glance.glance import Glance
from steersman.recipes.series.series import Series
from steersman.recipes.sight.task import AnswerPictures, CaptionPictures
from steersman.recipes.song.recipes import SongRecipe
from steersman.recipes.stills import Still
from steersman.recipes.text.classify import TextClassifier
from steersman.sources import lerobot, read
from steersman.sources.counted import Counted
from steersman.sources.pictures import Pictures
from steersman.sources.songs import Songs
from steersman.sources.source import SourceSpec
from steersman.sources.synthetic import Reversed, Road
from steersman.sources.told_pictures import told
from steersman.training.checkpoints import Checkpoints, read_tensors
from steersman.training.fit import fit
from steersman.training.prepare import prepare
from steersman.training.recipe import Recipe
from steersman.training.run import Run
from steersman.training.sequence_to_sequence import SequenceToSequence, Vocabularies
from steersman.training.trainer import Trainer, read_log
from steersman.worlds.recording import Recorded

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TEXT = 'three mice ran (slowly) up\nthe old stairs, and "seven" came down\n'


def benchmark(name: str) -> ModuleType:
    """A benchmark's functions, without running it."""
    found = spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert found
    assert found.loader
    module = sys.modules[name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def write_text(file: Path, length: int, seed: int = 0) -> Path:
    """A text of a few words in random order, with lines: something to foretell, and something to guess."""
    rng, words = np.random.default_rng(seed), TEXT.split()
    drawn = (words[i] + ("\n" if rng.random() < 0.2 else " ") for i in rng.integers(0, len(words), length))
    file.write_text("".join(drawn)[:length])
    return file


@cache
def text_folder() -> str:
    folder = Path(tempfile.mkdtemp())
    for seed in range(6):
        write_text(folder / f"{seed}.txt", 300 + 40 * seed, seed)
    return str(folder)


def is_text(name: str) -> bool:
    return name in ("chars", "bytes")


ROAD = Road(records=8, steps=50)
SMALL_EYES = {
    Glimpse: {"sensor": Sensor(4, 2), "hidden": 16, "place": 8, "features": 16},
    Sketch: {"read": 3, "write": 0, "latent": 4},
}
CONV = {"channels": (4, 8), "kernels": (5, 3), "strides": (2, 2), "features": 16}


@cache
def few_drives(source: Recorded) -> Recorded:
    """Few drives of a world without pictures, recorded here and now."""
    few = replace(source, episodes=48, folder=tempfile.mkdtemp())
    few.record(workers=1)
    return few


def is_camera(name: str) -> bool:
    recipe = RECIPES[name](())
    return isinstance(recipe.source, Recorded) and not is_slowly_found(recipe)


def is_slowly_found(recipe: Recipe) -> bool:
    """How fast a pendulum turns shows only in small differences between its angles."""
    return getattr(recipe, "inputs", "") == "angle"


def is_told_too_little(recipe: Recipe) -> bool:
    """A twin without memory of a recipe whose single steps do not hold the answer."""
    if is_sight(recipe):  # A question without its picture, and a picture without its question.
        return isinstance(recipe.encoder, TextEncoder | Grid)
    is_one_number = isinstance(getattr(recipe, "encoder", None), Foreground)
    return (is_slowly_found(recipe) or is_one_number) and isinstance(recipe.core, Memoryless)


def is_eye(encoder) -> bool:
    return hasattr(encoder, "pixels")


def small(name: str, data=()) -> Recipe:
    """A recipe with fewer units, rows and steps; a camera recipe on the synthetic road instead of a simulator."""
    recipe = RECIPES[name](read(Path(data[0])) if data else ())
    if is_slowly_found(recipe):
        recipe = replace(
            recipe, source=few_drives(recipe.source), batches=replace(recipe.batches, batch_size=8, window=25)
        )
    elif isinstance(recipe.source, Recorded):
        pixels = eye_of(recipe.encoder).pixels
        size = {"height": 12, "width": 16} if "height" in {f.name for f in fields(pixels)} else {}
        recipe = replace(
            recipe,
            source=ROAD,
            encoder=small_eye(recipe.encoder, replace(pixels, **size)),
            head=replace(recipe.head, targets=("steer",), weights=()),
            augment=(Mirror(),),
            batches=replace(recipe.batches, batch_size=4, window=8),
            split=replace(recipe.split, gap_s=0.5),
        )
    if isinstance(recipe.source, Counted):
        recipe = replace(
            recipe,
            source=replace(recipe.source, films=24, frames=24, height=64, width=96),
            encoder=replace(recipe.encoder, pixels=Picture(32, 48)),
            batches=replace(recipe.batches, batch_size=4, window=8),
        )
    if isinstance(recipe, Series):
        recipe = replace(recipe, source=replace(recipe.source, series=max(4, recipe.source.series)), context=20)
        recipe = recipe.adapt({"train": records(recipe.source)})
    if isinstance(recipe, TextClassifier):
        recipe = replace(recipe, encoder=replace(recipe.encoder, features=8))
        recipe = recipe.adapt({"train": records(recipe.source)})
    if isinstance(recipe, Still):
        encoder = replace(recipe.encoder, **SMALL_EYES[type(recipe.encoder)])
        recipe = replace(recipe, source=Bars(), steps=12, encoder=encoder, batches=Windows(batch_size=8))
        recipe = replace(recipe, split=replace(recipe.split, validation=0.15, test=0.15))
        if isinstance(recipe, Glance):
            recipe = replace(recipe, classes=()).adapt({"train": records(recipe.source)})
    if isinstance(recipe, SongRecipe):
        recipe = replace(
            recipe,
            source=Songs(made=8),
            encoder=replace(recipe.encoder, features=8),
            keys=1,
            batches=replace(recipe.batches, batch_size=4, window=8),
            training=replace(recipe.training, ema_decay=0.9),
        ).adapt({"train": records(Songs(made=8))})
    if is_text(name):
        recipe = replace(
            recipe,
            source=Texts(text_folder()),
            encoder=replace(recipe.encoder, features=8),
            batches=replace(recipe.batches, batch_size=4, window=8),
            split=replace(recipe.split, validation=0.1),
            training=replace(recipe.training, ema_decay=0.9),
        )
    if hasattr(recipe, "core"):
        recipe = replace(recipe, core=small_core(recipe.core))
    else:
        recipe = small_sight(recipe) if is_sight(recipe) else small_translation(recipe)
    return replace(recipe, training=replace(recipe.training, precision="float32"))


def fitted(name: str, folder: Path) -> Run:
    """A small recipe trained for a few steps, with checkpoints and looks between them."""
    recipe = small(name)
    few = replace(recipe.training, steps=4, warmup=1, checkpoint_every=2, validate_every=4)
    return fit(name, replace(recipe, training=few), folder, say=lambda text: None)


def unaugmented(recipe: Recipe) -> Recipe:
    """The recipe whose inputs are the same in every pass."""
    return replace(recipe, augment=()) if hasattr(recipe, "augment") else recipe


def small_core(core):
    if isinstance(core, Window):
        return replace(core, core=small_core(core.core), steps=4)
    if isinstance(core, Pooled):
        return replace(core, core=small_core(core.core))
    return replace(core, hidden=16) if hasattr(core, "hidden") else core


def eye_of(encoder):
    """The encoder of pictures, alone or as a part."""
    return encoder.parts[0].encoder if isinstance(encoder, Joined) else encoder


def with_pixels(encoder, pixels):
    """The encoder that prepares its pictures so."""
    if isinstance(encoder, Joined):
        first, *others = encoder.parts
        return replace(encoder, parts=(replace(first, encoder=with_pixels(first.encoder, pixels)), *others))
    return replace(encoder, pixels=pixels)


def small_eye(encoder, pixels):
    if isinstance(encoder, Joined):
        first, *others = encoder.parts
        return replace(encoder, parts=(replace(first, encoder=small_eye(first.encoder, pixels)), *others))
    if isinstance(encoder, Pretrained):  # Its weights may not be installed.
        return replace(encoder, weights="none", blocks=1, features=16, dropout=0.0, pixels=pixels)
    return replace(encoder, pixels=pixels, **CONV)


def small_translation(recipe: SequenceToSequence) -> SequenceToSequence:
    """Digits said backwards, in place of a language; the searched length, the units and the batches are small too."""
    return replace(
        recipe,
        source=Reversed(records=200, shortest=8, longest=9),
        encoder=TextEncoder(24, Bidirectional(GRU(24)), dropout=0.1),
        decoder=Decoder(24, GRU(24), upper=GRU(24), dropout=0.1, scheduled_sampling=0.2, sampling_ramp=5),
        head=Readout(dropout=0.1),
        vocabularies=Vocabularies("words", min_count=1),
        batches=ByLength(batch_size=8),
        split=replace(recipe.split, validation=0.15, test=0.15),
        training=replace(recipe.training, ema_decay=0.9),
        task=replace(recipe.task, max_length=12),
    )


def is_sight(recipe: Recipe) -> bool:
    """Whether a text is said about pictures."""
    return isinstance(recipe.task, AnswerPictures | CaptionPictures)


@dataclass(frozen=True)
class Squares(SourceSpec):
    """Pictures, and films of two, of a bright square in one of four corners, asked for a row or a column."""

    frames: int = 1
    asks: bool = True

    def read(self, watch=None):
        rng = np.random.default_rng(0)
        return [self.square(f"square-{i:03d}", rng) for i in range(160)]

    def square(self, name: str, rng: np.random.Generator) -> Record:
        picture, (row, column) = rng.integers(0, 60, (self.frames, 12, 12, 3), np.uint8), rng.integers(0, 2, 2)
        picture[:, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 180
        asked, place = ("row", row) if rng.random() < 0.5 else ("column", column)
        question, answer = (f"which {asked}", f"number {place}") if self.asks else ("", f"{row} and {column}")
        return told(name, picture, answer, question, scene=name)


def small_sight(recipe: SequenceToSequence) -> SequenceToSequence:
    """Squares, in place of photographs and films."""
    films = isinstance(recipe.encoder, Stepwise)
    pixels, grid = Picture(12, 12), Grid(channels=(6, 8), kernels=(3, 3), strides=(2, 2), pixels=Picture(12, 12))
    asks = TextEncoder(12, GRU(12), 0.0, "question", start=1.0)
    if isinstance(recipe.encoder, Conditioned):
        encoder = Conditioned(replace(grid, norm=True), asks, 32)
    elif isinstance(recipe.encoder, Stepwise):
        seen = Conv((6, 8), (3, 3), (2, 2), 16, pixels=pixels)
        encoder = replace(recipe.encoder, encoder=seen, core=small_core(recipe.encoder.core))
    elif isinstance(recipe.encoder, PretrainedGrid):  # Its weights may not be installed.
        encoder = PretrainedGrid(blocks=1, features=12, dropout=0.1, weights="none", pixels=pixels)
    else:
        encoder = asks if isinstance(recipe.encoder, TextEncoder) else replace(grid, norm=True)
    decoder = replace(recipe.decoder, embedding=64, core=GRU(32), dropout=0.0)
    return replace(
        recipe,
        source=Squares(2 if films else 1, asks="question" in recipe.encoder.sources),
        encoder=encoder,
        decoder=decoder,
        vocabularies=replace(recipe.vocabularies, min_count=1),
        batches=replace(recipe.batches, batch_size=8),
        split=replace(recipe.split, by="record", validation=0.15, test=0.15),
        training=replace(recipe.training, ema_decay=0.9),
        task=replace(recipe.task, max_length=6),
    )


def deep() -> Recipe:
    """Every part that remembers something, at once: stacked pictures, layers of all kinds, dropout, lanes."""
    recipe = small("steer")
    assert isinstance(recipe.encoder, Conv)
    layers = (LSTM(6), GRU(5), RNN(4), LSTM(6), LSTM(6), LSTM(6))
    return replace(
        recipe,
        encoder=replace(recipe.encoder, frames=3, dropout=0.3),
        core=Stack(layers, dropout=0.2),
        batches=Lanes(batch_size=4, window=7),
    )


def deep_windows() -> Recipe:
    return replace(deep(), batches=Windows(batch_size=4, window=9, stride=5))


def both_ways() -> Recipe:
    """A core that reads records from both ends, which lanes would cut."""
    return replace(small("echo"), core=Bidirectional(GRU(8)), batches=Lanes(batch_size=4, window=8))


COMPOSED = {"deep": deep, "deep-windows": deep_windows, "both-ways": both_ways}


@dataclass(frozen=True)
class Texts(SourceSpec):
    """A folder as a recipe's own source."""

    folder: str

    def read(self, watch=None):
        return read(Path(self.folder))


@dataclass(frozen=True)
class Bars(Pictures):
    """Small pictures of a bar that lies or stands, in one of three places."""

    def read(self, watch=None):
        rng = np.random.default_rng(self.seed)
        return [self.bar(f"bar-{i:03d}", ("lies", "stands")[i % 2], rng) for i in range(120)]

    def bar(self, name: str, label: str, rng: np.random.Generator) -> Record:
        picture, at = np.zeros((9, 11), np.uint8), 3 * int(rng.integers(3))
        picture[(slice(at, at + 3), slice(None)) if label == "lies" else (slice(None), slice(at, at + 3))] = 255
        once = np.zeros(1)
        return Record(name, {"picture": Stream(picture[None], once), "label": Stream(np.array([label], object), once)})


@dataclass(frozen=True, eq=False)
class Given(SourceSpec):
    """Records that a test made."""

    records: tuple

    def read(self, watch=None):
        return list(self.records)


@cache
def records(source) -> tuple:
    return tuple(source.read()[:40])


def built(recipe: Recipe, seed: int = 0):
    """The model of a recipe with its normalisers, and what it is shown."""
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(recipe, {"train": list(records(recipe.source)), "validation": []}, folder=Path(folder))
    return made.model, made.examples["train"]


def raw_frames(recipe: Recipe, model, record) -> list:
    """A record as a program gives it to `model.step`: a raw step, or a dict of them by name."""
    record = recipe.seen(record)
    begin, raw = raw_steps(record, wanted := recipe.wanted(model))
    values = {name: np.asarray(stream[:]) for name, stream in raw.items()}
    once = {reading.stream for reading in wanted.inputs if reading.once}
    steps = len(record[recipe.inputs]) - begin
    frames = [{name: v[0 if name in once else t] for name, v in values.items()} for t in range(steps)]
    return frames if model.inputs else [frame[recipe.inputs] for frame in frames]


def each(x, change):
    """A tensor, or every one of several inputs, changed."""
    return x.map(change) if isinstance(x, Inputs) else change(x)


def begun(model, shown: list, rows: int):
    """The state before the first step; of a model that reads sources, after it has read them."""
    if not model.aligned:
        pairs = shown[:rows]
        return model.read({name: Ragged(*padded([p.sources[name] for p in pairs])) for name in pairs[0].sources})
    return model.initial(rows)


def batches(recipe: Recipe, model, shown: list[Example], **options) -> Batches:
    return recipe.make_batches(model, shown, **({"rank": 0, "ranks": 1} | options))


class Killed(Exception):
    """What a test raises in the place of a `kill -9`: nothing is written after it."""


def trainer(recipe: Recipe, folder: Path, kill_at: int = -1, **changes) -> Trainer:
    """A trainer as `fit` makes it, killed when the log has the row of a step."""
    recipe = replace(recipe, training=replace(recipe.training, **changes))
    model, shown = built(recipe)
    torch.manual_seed(1)

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        if done == kill_at:
            raise Killed

    made, validate = batches(recipe, model, shown), recipe.validation(shown[:2])
    return Trainer(model, made, recipe.training, folder, validate, say=lambda text: None, watch=watch)


def outcome(folder: Path) -> dict:
    """All that a run leaves but the times: the log, the best weights, the last checkpoint."""
    checkpoints = Checkpoints(folder / "checkpoints")
    tensors, state = checkpoints.read(checkpoints.steps()[-1])
    log = [{k: v for k, v in row.items() if k != "seconds"} for row in read_log(folder)]
    return {
        "log": json.dumps(log),
        "state": json.dumps(state),
        "best": flat({"": read_tensors(folder / "model.safetensors")}),
        "checkpoint": flat(tensors),
    }


def flat(groups) -> dict[str, bytes]:
    return {f"{g}/{n}": t.numpy().tobytes() for g, tensors in groups.items() for n, t in tensors.items()}


def write_log(folder: Path, num: int = 3, steps: int = 60) -> Path:
    """Drives on the synthetic road as a recording of a camera and a wheel."""
    made = Road(records=num, steps=steps).read()
    streams = [{k: np.asarray(s.values) for k, s in record.streams.items()} for record in made]
    writer = lerobot.Writer(folder, 10.0, lerobot.kinds(streams[0]), "follow the road")
    for episode in streams:
        writer.add(episode)
    return folder
