"""Task of a sequence said about sources of any kind: how likely the true one was, token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np
import torch

from ..data.pairs import Pair, batch_of
from ..errors import UserError
from ..json_types import JsonObject
from ..nn.encoder_decoder import EncoderDecoder, Readout
from ..progress import Watch, silent
from ..training.material import Material
from ..training.run import Run
from ..training.sequence_to_sequence import TARGET
from ..training.task import TaskSpec
from .outcome import Scored, Told, best_first, contract, scores_beside
from .page import Fact, Section, Table
from .sections import percent

ROWS = 32
"""Pairs that are scored together."""
SHOWN = 12
"""Pairs whose sequence is written out on the page."""


@dataclass(frozen=True)
class SaySequence(TaskSpec):
    """Tokens are said about sources; scored by how likely the true ones were, each told those before it."""

    measure: ClassVar[str] = "nats"
    heads = (Readout,)
    usual: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("nats", "accuracy")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        if material.known is None:
            raise UserError(f"the data that {run.folder} was trained on is gone, and its baselines are made of that")
        model: EncoderDecoder = run.model()
        pairs = run.recipe.examples(model, material.test, watch)
        known = run.recipe.examples(model, material.known["train"], watch)
        nats, right = (np.concatenate(part) for part in zip(*_by_token(model, pairs), strict=True))
        scores: JsonObject = {
            "nats": float(nats.mean()),
            "accuracy": float(right.mean()),
            "tokens": len(nats),
            "pairs": len(pairs),
            "baselines": _frequencies(known, pairs, len(model.vocabularies[TARGET]))
            | scores_beside(self, self.columns, beside, material),
            "data": material.name,
        }
        scores = contract(self, scores, self.columns)
        return Scored(scores, lambda: _told(scores, model, pairs[:SHOWN]))


@torch.no_grad()
def _by_token(model: EncoderDecoder, pairs: Sequence[Pair]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Nats of each true token, and whether it was the likeliest."""
    for start in range(0, len(pairs), ROWS):
        batch = batch_of(pairs[start : start + ROWS])
        raw, _ = model(batch, model.initial(len(batch.x)))
        there = batch.mask > 0
        logits, truth = raw[there].float(), batch.y[there]
        nats = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
        yield nats.numpy(), (logits.argmax(1) == truth).numpy()


def _frequencies(known: Sequence[Pair], pairs: Sequence[Pair], size: int) -> dict[str, JsonObject]:
    """How common each token is in training, one added to each count, and no idea at all."""
    counts, asked = (
        np.bincount(np.concatenate([pair.target[1:] for pair in part]), minlength=size) for part in (known, pairs)
    )
    share, chance = asked / asked.sum(), (counts + 1) / (counts.sum() + size)
    return {
        "majority": {"nats": float(-share @ np.log(chance)), "accuracy": float(share[counts.argmax()])},
        "uniform": {"nats": log(size), "accuracy": 1 / size},
    }


def _told(scores: JsonObject, model: EncoderDecoder, pairs: Sequence[Pair]) -> Told:
    majority = scores["baselines"]["majority"]
    summary = (
        f"Of {scores['tokens']:,} tokens in {scores['pairs']:,} sequences it names {percent(scores['accuracy'])} "
        f"rightly, each told those before it; always the commonest: {percent(majority['accuracy'])}."
    )
    facts = [
        Fact("Nats a token", f"{scores['nats']:.3f}", f"training frequencies: {majority['nats']:.3f}"),
        Fact("Foretold rightly", percent(scores["accuracy"]), f"the commonest: {percent(majority['accuracy'])}"),
    ]
    rows = {"this run": scores, **scores["baselines"]}
    order = best_first({name: row["nats"] for name, row in rows.items()}, higher_is_better=False)
    table = [[name, rows[name]["nats"], rows[name]["accuracy"]] for name in order]
    sections = [
        Section(
            "Beside the baselines",
            "What the frequencies of training tokens would get, and no idea at all.",
            [Table(("", "nats a token", "foretold rightly"), table, strong=[order.index("this run")])],
        ),
        Section("Examples", "The first, said greedily.", [Table(("said", "truth"), _said(model, pairs))]),
    ]
    return summary, facts, sections


def _said(model: EncoderDecoder, pairs: Sequence[Pair]) -> list[list[str]]:
    """What is said, beside the truth."""
    longest = 2 * max(len(pair) for pair in pairs) + 10
    found = model.say(batch_of(pairs).sources, longest)
    vocabulary = model.vocabularies[TARGET]
    return [[vocabulary.decode(best[0].tokens), pair.texts[TARGET]] for best, pair in zip(found, pairs, strict=True)]
