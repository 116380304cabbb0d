"""Translator: an encoder-decoder with the vocabularies of its two languages."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ...data.pairs import ByLength, padded
from ...data.vocabulary import BEGIN, UNKNOWN, Vocabulary
from ...nn.encoder_decoder import EncoderDecoder
from ...progress import Watch, silent

STEPS = 8192
"""Most steps of sources that are translated together, padding included: what is remembered of them is large."""


class Translator(EncoderDecoder):
    """An encoder-decoder with the vocabularies of its two languages."""

    vocabularies: tuple[Vocabulary, Vocabulary]

    @torch.no_grad()
    def translate(
        self, texts: Sequence[str], beam: int = 1, power: float = 1.0, longest: int = 200, rows: int = 256,
        watch: Watch = silent,
    ) -> list["Translated"]:  # fmt: skip
        """Translations in the order of the texts; up to `rows` of about one length are done together.

        None is longer than `longest` tokens, or twice its source and ten.
        """
        source, target = self.vocabularies
        tokens = source.encode_all(texts)
        lengths = np.array([len(known) if text.strip() else 0 for text, known in zip(texts, tokens, strict=True)], int)
        order = lengths.argsort(kind="stable")[(lengths == 0).sum() :]
        found, done = [Translated(text, "") for text in texts], 0
        groups = ByLength(rows, STEPS).full(order, lengths[:, None]) if len(order) else []
        for group in ([int(i) for i in indices] for indices in groups):
            batch, sizes = padded([np.array(tokens[i]) for i in group])
            limit = (2 * sizes + 10).clamp_max(longest)
            for i, best in zip(group, self.say(batch, sizes, limit, beam, power), strict=True):
                unknown = tokens[i].count(UNKNOWN)
                found[i] = Translated(texts[i], target.decode(best[0].tokens), best[0].tokens, best[0].score, unknown)
            done += len(group)
            watch("translating", done, len(order))
        return found

    @torch.no_grad()
    def attention(self, text: str, said: Sequence[int]) -> "Attention":
        """Where it looked while it said this of a text. UserError where it has no attention."""
        source, target = self.vocabularies
        tokens = source.encode(text)
        training = self.training
        state = self.eval().read(*padded([np.array(tokens)]))
        weights = self.decoder.weights(torch.tensor([[BEGIN, *said]]), state)[0].numpy()
        self.train(training)
        return Attention(source.pieces(tokens), [*target.pieces(said), "(end)"], weights)


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
class Attention:
    """Rows: what was said. Columns: what was read. A row's weights sum to 1."""

    source: list[str]
    target: list[str]
    weights: np.ndarray
