"""Scores of sequences of words, and what the nearest training sentence would get."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import exp, log, sqrt

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


def bleus(said: Sequence[str], truths: Sequence[Sequence[str]]) -> JsonObject:
    """BLEU of up to 1, 2, 3 and 4 words, each text beside any number of true ones, without regard to case."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise UserError(
            'BLEU is counted by sacrebleu, which is not installed; run: pip install "steersman[text]"'
        ) from None
    most = max(map(len, truths))
    columns = [[texts[i] if i < len(texts) else None for texts in truths] for i in range(most)]
    found = {}
    for order in range(1, 5):
        metric = BLEU(lowercase=True, max_ngram_order=order, force=True)
        found[f"bleu{order}"] = float(metric.corpus_score(list(said), columns).score)  # pyright: ignore[reportArgumentType]
    return found


ORDERS, SPREAD = (1, 2, 3, 4), 6.0
"""Words of the n-grams that CIDEr-D counts, and the spread of lengths that it forgives."""


def cider(said: Sequence[str], truths: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each text beside its true ones (Vedantam et al. 2015, section 4 and appendix): 0 to 10.

    n-grams are weighted by how few of the texts' sets of true ones hold them; words are as `words_of` divides them, not
    stemmed, as in the figures that are published.
    """
    grams = [[_grams(text) for text in texts] for texts in truths]
    held = Counter(gram for texts in grams for gram in set().union(*texts))
    whole = log(max(len(truths), 1))

    def weighed(counts: Counter[tuple[str, ...]], order: int) -> dict[tuple[str, ...], float]:
        return {g: n * (whole - log(max(1, held[g]))) for g, n in counts.items() if len(g) == order}

    found = []
    for text, own in zip(said, grams, strict=True):
        mine, total = _grams(text), 0.0
        for true in own:
            gap = _length(mine) - _length(true)
            for order in ORDERS:
                a, b = weighed(mine, order), weighed(true, order)
                norm = sqrt(sum(v * v for v in a.values())) * sqrt(sum(v * v for v in b.values()))
                product = sum(min(v, b[g]) * b[g] for g, v in a.items() if g in b)
                total += product / norm * exp(-(gap**2) / (2 * SPREAD**2)) if norm else 0.0
        found.append(10 * total / len(ORDERS) / max(len(own), 1))
    return found


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = words_of(text)
    return Counter(tuple(words[i : i + n]) for n in ORDERS for i in range(len(words) - n + 1))


def _length(grams: Counter[tuple[str, ...]]) -> int:
    return sum(n for gram, n in grams.items() if len(gram) == 1)


def words_of(text: str) -> list[str]:
    """Words of a text in lower case, without its marks."""
    return re.findall(r"[^\W_]+(?:['\u2019-][^\W_]+)*", text.lower())


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
