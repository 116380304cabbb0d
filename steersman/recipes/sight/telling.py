"""What a model says of pictures, and where it looked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ...data.pairs import Pair, batch_of
from ...data.vocabulary import BEGIN, UNKNOWN
from ...errors import UserError
from ...nn.encoder_decoder import EncoderDecoder
from ...nn.picture_sources import cells_of
from ...progress import Watch, silent
from ...training.sequence_to_sequence import TARGET

ROWS = 64
"""Pictures that are told of together."""


@dataclass(frozen=True)
class Said:
    """A text that was said."""

    text: str
    tokens: list[int] = field(default_factory=list)
    unknown: int = 0
    """Pieces of the question that the vocabulary does not hold."""


def tell(model, pairs: Sequence[Pair], max_length: int, beam_width: int = 1, watch: Watch = silent) -> list[Said]:
    """What is said about each pair's sources."""
    found, vocabulary = [], model.vocabularies[TARGET]
    for start in range(0, len(pairs), ROWS):
        rows = pairs[start : start + ROWS]
        watch("telling", start, len(pairs))
        for best, pair in zip(model.say(batch_of(rows).sources, max_length, beam_width), rows, strict=True):
            unknown = sum(int((pair.sources[name] == UNKNOWN).sum()) for name in model.encoder.texts)
            found.append(Said(vocabulary.decode(best[0].tokens), best[0].tokens, unknown))
    return found


@torch.no_grad()
def looked(model: EncoderDecoder, pair: Pair, said: Sequence[int]) -> tuple[list[str], np.ndarray]:
    """Where it looked: what each map is of, and maps (look row column) that sum to 1 each.

    UserError where it looks at no part of a picture.
    """
    cells = cells_of(model.encoder)
    if cells is None or model.decoder.look is None:
        raise UserError("this model looks at no part of a picture: it sees each as a whole")
    model.eval()
    sources = batch_of([pair]).sources
    weights = model.decoder.weights(torch.tensor([[BEGIN, *said]]), model.read(sources))[0, :, : cells[0] * cells[1]]
    names = [*model.vocabularies[TARGET].pieces(said), "(end)"]
    return names, weights.float().numpy().reshape(len(weights), *cells)
