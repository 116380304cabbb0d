"""Scores of sequences of words, and what the nearest training sentence would get."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log

import numpy as np

from ..errors import UserError
from ..json_types import JsonObject


def bleu(said: Sequence[str], truth: Sequence[str], lower: bool = False) -> JsonObject:
    """BLEU and chrF (Papineni et al. 2002; Popovic 2015) by sacrebleu (Post 2018), with BLEU's signature."""
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise UserError(
            'BLEU is counted by sacrebleu, which is not installed; run: pip install "steersman[text]"'
        ) from None
    metric = BLEU(lowercase=lower)
    score = metric.corpus_score(list(said), [list(truth)]).score
    chrf = CHRF(lowercase=lower).corpus_score(list(said), [list(truth)]).score
    return {"bleu": float(score), "chrf": float(chrf), "signature": str(metric.get_signature())}


class Nearest:
    """The translation of the most similar training sentence: cosine of words weighted by rarity (Salton 1988)."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self.pairs = pairs
        bags = [Counter(_words(source)) for source, _ in pairs]
        self.idf = {w: log(len(pairs) / n) + 1 for w, n in Counter(w for bag in bags for w in bag).items()}
        rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for row, bag in enumerate(bags):
            norm = sum((n * self.idf[w]) ** 2 for w, n in bag.items()) ** 0.5
            for word, n in bag.items():
                rows[word].append((row, n * self.idf[word] / norm))
        self.index = {word: tuple(map(np.array, zip(*found, strict=True))) for word, found in rows.items()}

    def __call__(self, text: str) -> str:
        near = np.zeros(len(self.pairs))
        for word, n in Counter(_words(text)).items():
            if word in self.index:
                row, weight = self.index[word]
                near[row] += n * self.idf[word] * weight
        return self.pairs[int(near.argmax())][1]


def _words(text: str) -> list[str]:
    return text.lower().split()
