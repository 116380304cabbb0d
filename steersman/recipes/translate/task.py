"""Score of a translator."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...evaluation.sequences import Nearest, bleu
from ...progress import Watch, silent
from ...training.recipe import read_records
from ...training.run import Run
from .recipe import Scores, Translation, texts
from .translator import Translated, Translator

LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 10**6))
"""Words of a source, by which the report divides the score."""


def score(run: Run, data: Sequence[str] = (), watch: Watch = silent) -> tuple[Scores, list[Translated], Translator]:
    """Scores on the run's own test pairs or on all of other data, what was said, and by which model."""
    recipe, model = run.recipe, run.model()
    assert isinstance(recipe, Translation)
    assert isinstance(model, Translator)
    parts = run.records(watch)
    pairs = [texts(r) for r in (read_records(recipe, data, watch) if data else parts["test"])]
    sources, truth = map(list, zip(*pairs, strict=True))
    judge = partial(bleu, truth=truth, lower=recipe.vocabularies.lower)
    began = time.process_time()
    said = model.translate(sources, recipe.beam, recipe.power, recipe.longest, watch=watch)
    seconds = time.process_time() - began
    greedy = model.translate(sources, longest=recipe.longest, watch=watch)
    nearest = Nearest([texts(r) for r in parts["train"]])
    rivals = {
        "greedy": [one.text for one in greedy],
        "the source, copied": sources,
        "translation of the nearest training sentence": [nearest(text) for text in sources],
    }
    whole = judge([one.text for one in said])
    scores = {
        **whole,
        "pairs": len(pairs),
        "beam": recipe.beam,
        "power": recipe.power,
        "unknown": sum(one.unknown for one in said),
        "cpu_seconds": seconds,
        "baselines": {name: judge(guess) for name, guess in rivals.items()},
        "by_length": list(_by_length(said, greedy, truth, recipe.vocabularies.lower)),
        "examples": [
            {"source": s, "said": one.text, "truth": t}
            for s, one, t in list(zip(sources, said, truth, strict=True))[:12]
        ],
        "data": ", ".join(Path(path).name for path in data) if data else "pairs kept apart from training",
    }
    return scores, said, model


def _by_length(
    said: Sequence[Translated], greedy: Sequence[Translated], truth: Sequence[str], lower: bool
) -> Iterator[dict[str, Any]]:
    for low, high in LENGTHS:
        inside = [i for i, one in enumerate(said) if low <= len(one.source.split()) <= high]
        if inside:
            guesses = [[found[i].text for i in inside] for found in (said, greedy)]
            beam, plain = (bleu(guess, [truth[i] for i in inside], lower)["bleu"] for guess in guesses)
            yield {"from": low, "to": high, "pairs": len(inside), "beam": beam, "greedy": plain}
