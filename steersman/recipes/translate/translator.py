"""Translation of texts by an encoder-decoder, and where it looked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch

from ...data.batches import Ragged
from ...data.pairs import ByLength, padded
from ...data.vocabulary import BEGIN, UNKNOWN
from ...errors import UserError
from ...json_types import JsonObject
from ...nn.encoder_decoder import EncoderDecoder
from ...nn.model import SequenceModel
from ...progress import Watch, silent
from ...training.sequence_to_sequence import TARGET

MOST_BEAMS = 100
"""Widest beam that is asked for: what is held grows with it, what is found hardly."""
AT_ONCE = 1280
"""Most sequences, over all beams, that are followed at once."""
STEPS = 8192
"""Most steps of sources that are translated together, padding included: what is remembered of them is large."""


@dataclass(frozen=True)
class Translated:
    """A text and what was said of it."""

    source: str
    text: str
    tokens: list[int] = field(default_factory=list)
    score: float = 0.0
    """Log-probability."""
    unknown: int = 0
    """Pieces of the source that the vocabulary does not hold."""


@dataclass(frozen=True)
class AttentionTable:
    """Rows: what was said. Columns: what was read. A row's weights sum to 1."""

    source: list[str]
    target: list[str]
    weights: np.ndarray


SOURCE = "source"
"""Name of the text that is translated."""


@torch.no_grad()
def translate(
    model: EncoderDecoder, texts: Sequence[str], beam_width: int = 1, length_penalty: float = 1.0,
    max_length: int = 200, rows: int = 256, watch: Watch = silent,
) -> list[Translated]:  # fmt: skip
    """Translations in the order of the texts; up to `rows` of about one length are done together.

    None is longer than `max_length` tokens, or twice its source and ten. UserError where the model reads no text alone,
    or the beam is none that can be followed.
    """
    check_translates(model)
    check_decoding(beam_width, length_penalty)
    source, target = model.vocabularies[SOURCE], model.vocabularies[TARGET]
    tokens = source.encode_all(texts)
    lengths = np.array([len(known) if text.strip() else 0 for text, known in zip(texts, tokens, strict=True)], int)
    order = lengths.argsort(kind="stable")[(lengths == 0).sum() :]
    found, done = [Translated(text, "") for text in texts], 0
    rows = max(1, min(rows, AT_ONCE // beam_width))
    groups = ByLength(rows, STEPS).full(order, lengths[:, None]) if len(order) else []
    for group in ([int(i) for i in indices] for indices in groups):
        batch = Ragged(*padded([np.array(tokens[i]) for i in group]))
        limit = (2 * batch.lengths + 10).clamp_max(max_length)
        for i, best in zip(group, model.say({SOURCE: batch}, limit, beam_width, length_penalty), strict=True):
            unknown = tokens[i].count(UNKNOWN)
            found[i] = Translated(texts[i], target.decode(best[0].tokens), best[0].tokens, best[0].score, unknown)
        done += len(group)
        watch("translating", done, len(order))
    return found


@torch.no_grad()
def attention(model: EncoderDecoder, text: str, said: Sequence[int]) -> AttentionTable:
    """The attention of a model while it says these tokens of a text. UserError where it has none."""
    source, target = model.vocabularies[SOURCE], model.vocabularies[TARGET]
    tokens = source.encode(text)
    training = model.training
    state = model.eval().read({SOURCE: Ragged(*padded([np.array(tokens)]))})
    weights = model.decoder.weights(torch.tensor([[BEGIN, *said]]), state)[0].numpy()
    model.train(training)
    return AttentionTable(source.pieces(tokens), [*target.pieces(said), "(end)"], weights)


def check_translates(model: SequenceModel) -> EncoderDecoder:
    """The model. UserError where it is none that reads one text and says another."""
    if getattr(getattr(model, "encoder", None), "sources", ()) != (SOURCE,) or not getattr(model, "vocabularies", {}):
        raise UserError("this run does not translate; train one that does: steersman train translate")
    return cast(EncoderDecoder, model)


def check_decoding(beam_width: int, length_penalty: float) -> None:
    """UserError where a beam search can't be asked for so."""
    if not 1 <= beam_width <= MOST_BEAMS or not 0 <= length_penalty <= 10:
        raise UserError(f"--beam-width must be from 1 to {MOST_BEAMS}, and --length-penalty from 0 to 10")


def has_attention(model: EncoderDecoder) -> bool:
    """Whether a model looks back at the source."""
    return model.decoder.look is not None


@dataclass(frozen=True)
class Speaker:
    """A translator that answers one text at a time, as the live server asks it to."""

    model: EncoderDecoder
    beam_width: int = 5
    length_penalty: float = 1.0
    max_length: int = 200

    def say(self, text: str) -> JsonObject:
        """`text`, `pieces`, `score` (log-probability), `unknown`, and `attention` with the pieces of both sides."""
        (found,) = translate(self.model, [text], self.beam_width, self.length_penalty, self.max_length)
        pieces = self.model.vocabularies[TARGET].pieces(found.tokens)
        answer = {"text": found.text, "pieces": pieces, "score": found.score, "unknown": found.unknown}
        if found.tokens and has_attention(self.model):
            table = attention(self.model, text, found.tokens)
            answer["attention"] = {"source": table.source, "target": table.target, "weights": table.weights.tolist()}
        return answer
