"""Pictures as sources: a grid of cells that a text is said about."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import Given

from steersman.data.batches import Ragged
from steersman.data.frames import Frames
from steersman.data.pairs import ByLength, batch_of
from steersman.data.records import Record, Stream, text_stream
from steersman.errors import UserError
from steersman.nn.cores import GRU, Bidirectional
from steersman.nn.encoder_decoder import Decoder, Readout, TextEncoder, Together
from steersman.nn.picture_sources import Grid
from steersman.nn.pictures import Picture
from steersman.recipes.translate.task import TranslateText
from steersman.training import sequence_to_sequence
from steersman.training.sequence_to_sequence import SequenceToSequence, Vocabularies

GRID = Grid(channels=(8, 12, 16))
ASKS = TextEncoder(16, Bidirectional(GRU(12)), dropout=0.0, stream="question")


def picture(rng: np.random.Generator, count: int, row: int, column: int) -> np.ndarray:
    """Dark noise with a bright square in one of 4x4 places."""
    made = rng.integers(0, 60, (count, 56, 56, 3), np.uint8)
    made[:, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14] += 180
    return made


def drawn(number: int) -> Record:
    """One picture or two, a question, and its answer."""
    rng = np.random.default_rng(number)
    row, column, asked = *rng.integers(0, 4, 2), ("row", "column")[number % 2]
    seen = picture(rng, 1 + number % 3 % 2, row, column)
    answer = f"{asked} {row if asked == 'row' else column}"
    streams = {"picture": Stream(seen, np.arange(float(len(seen)))), "question": text_stream(f"which {asked} is it")}
    return Record(f"drawn-{number}", streams | {"target": text_stream(answer)})


def recipe(encoder=Together((GRID, ASKS))) -> SequenceToSequence:  # noqa: B008
    return SequenceToSequence(
        source=Given(tuple(drawn(i) for i in range(8))),
        encoder=encoder,
        decoder=Decoder(24, GRU(24), upper=GRU(24), dropout=0.0),
        head=Readout(smoothing=0.0, dropout=0.0),
        vocabularies=Vocabularies("words", min_count=1),
        batches=ByLength(batch_size=8),
        task=TranslateText(),
    )


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Model and pairs of a recipe; prepared pictures are kept in a folder of the test's."""
    monkeypatch.setattr(sequence_to_sequence, "cache_folder", lambda: tmp_path / "cache")

    def make(wanted: SequenceToSequence):
        torch.manual_seed(0)
        records = wanted.source.read()
        model = wanted.with_vocabularies(wanted.learned(records), wanted.shapes(records))
        pairs = wanted.examples(model, records)
        wanted.fit_normalisers(model, pairs)
        return model.eval(), pairs

    return make


def test_a_picture_of_56_by_56_is_a_grid_of_7_by_7_with_a_mask_of_its_own(made):
    model, pairs = made(recipe(GRID))
    assert GRID.build({"picture": (80, 90, 3)}).cells == 49
    memory = model.encoder(batch_of(pairs).sources)
    counts = [len(pair.sources["picture"]) for pair in pairs]
    assert memory.values.shape == (8, 2 * 49, 16)
    assert memory.mask.sum(1).tolist() == [49 * count for count in counts] != [98] * 8
    assert not memory.values[~memory.mask].any()


def test_a_picture_of_several_records_is_prepared_once_and_films_are_kept_on_disk(made, tmp_path, monkeypatch):
    wanted, prepared = recipe(GRID), []
    one = drawn(0)
    records = [one, replace(one, name="again"), drawn(1)]
    model = wanted.with_vocabularies(wanted.learned(records), wanted.shapes(records))
    whole = model.encoder.prepare
    monkeypatch.setattr(model.encoder, "prepare", lambda name, raw: prepared.append(1) or whole(name, raw))
    pairs = wanted.examples(model, records)
    assert len(prepared) == 2
    assert pairs[0].sources["picture"] is pairs[1].sources["picture"]
    film = Frames([picture(np.random.default_rng(0), 1, 0, 0)[0]] * 3)
    streams = {**one.streams, "picture": Stream(film, np.arange(3.0))}
    (pair,) = wanted.examples(model, [replace(one, streams=streams)])
    assert isinstance(pair.sources["picture"], np.memmap)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_a_small_batch_of_pictures_and_questions_overfits(made):
    model, pairs = made(recipe())
    batch = batch_of(pairs)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(120):
        total, weight = model.loss(batch, model(batch, model.initial(8))[0])
        losses.append((total / weight).item())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]
    said = model.say(batch.sources, 6)
    words = model.vocabularies["target"]
    assert [words.decode(best.tokens) for (best,) in said] == [pair.texts["target"] for pair in pairs]


def test_neither_padding_nor_other_rows_change_what_is_said_of_a_row(made):
    model, pairs = made(recipe())
    batch = batch_of(pairs)
    whole = model(batch, model.initial(8))[0]
    noise = torch.Generator().manual_seed(0)

    def dirtied(source: Ragged) -> Ragged:
        longer = torch.cat((source.values, source.values[:, :1]), 1)
        there = Ragged(longer, source.lengths).mask.view(*longer.shape[:2], *[1] * (longer.ndim - 2))
        other = torch.randint(1, 4, longer.shape, generator=noise).to(longer.dtype)
        return Ragged(torch.where(there, longer, other), source.lengths)

    padded = replace(batch, sources={name: dirtied(source) for name, source in batch.sources.items()})
    torch.testing.assert_close(model(padded, model.initial(8))[0], whole, atol=1e-5, rtol=1e-4)
    for row, pair in enumerate(pairs):
        alone = model(batch_of([pair]), model.initial(1))[0]
        torch.testing.assert_close(alone[0], whole[row, : len(pair)], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (replace(GRID, kernels=(5, 3)), "3 channels, 2 kernels"),
        (replace(GRID, kernels=(4, 3, 3)), "a kernel of 4 has no middle"),
    ],
)
def test_a_grid_that_can_not_be_is_refused(grid, said):
    with pytest.raises(UserError, match=said):
        grid.build({"picture": (56, 56, 3)})


def test_a_grid_takes_pictures_alone():
    with pytest.raises(UserError, match="Grid needs pictures"):
        replace(GRID, pixels=Picture(7, 7)).build({"picture": (4,)})
