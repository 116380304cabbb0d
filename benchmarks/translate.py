"""What each part of a translator is worth: trains and scores a table of variants, each in the same CPU time.

    python benchmarks/translate.py --data train.de train.en --test test.de test.en --minutes 12 --lower

Columns: BLEU of greedy and of beam search on the test files, a row a variant and seed. How many steps a variant gets is
found by timing its first ones; the schedule of the learning rate fits them. One thread.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from steersman.attention import Additive
from steersman.cores import GRU
from steersman.recipes import RECIPES
from steersman.runs import fit
from steersman.sources.parallel import read
from steersman.translation import Nearest, Translation, bleu, texts

TIMED = 30
"""Steps by which a variant's speed is found, after as many that are not counted."""


def variants(base: Translation) -> dict[str, Translation]:
    """By name; each differs from the first in one thing."""
    core, encoder = base.core, base.encoder
    return {
        "attention, both ways, subwords": base,
        "additive attention": replace(base, core=replace(core, attention=Additive())),
        "no attention": replace(base, core=replace(core, attention=None)),
        "reads one way": replace(base, encoder=replace(encoder, core=GRU(512))),
        "words": replace(base, vocabularies=replace(base.vocabularies, pieces="words")),
        "no label smoothing": replace(base, head=replace(base.head, smoothing=0.0)),
        "scheduled sampling": replace(base, core=replace(core, sampled=0.25)),
    }


def budgeted(recipe: Translation, data: list[str], folder: Path, minutes: float) -> Translation:
    """With as many steps as fit into that CPU time, looks at the validation pairs included."""
    seconds = []
    for steps in (TIMED, 2 * TIMED):
        short = replace(recipe.training, steps=steps, validate_every=10**6, checkpoint_every=10**6)
        began = time.process_time()
        fit("translate", replace(recipe, training=short), folder / f"timed-{steps}", data, say=lambda text: None)
        seconds.append(time.process_time() - began)
    step = max(1e-3, (seconds[1] - seconds[0]) / TIMED)
    return replace(recipe, training=replace(recipe.training, steps=max(50, int(0.95 * 60 * minutes / step))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="training texts, source before target")
    parser.add_argument("--test", nargs=2, required=True, help="texts to score on")
    parser.add_argument("--minutes", type=float, default=12, help="CPU time of each cell")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="variants with this in their name")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--lower", action="store_true", help="lower-case everything")
    parser.add_argument("--folder", type=Path, default=Path("runs/translate-table"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = RECIPES["translate"](options.data)
    base = replace(base, vocabularies=replace(base.vocabularies, lower=options.lower))
    sources, truth = zip(*map(texts, read(options.test)), strict=True)
    nearest = Nearest([texts(r) for r in read(options.data)])
    for name, said in (("the source, copied", sources), ("nearest training sentence", [nearest(s) for s in sources])):
        print(f"{name}: {bleu(said, truth, options.lower)['bleu']:.2f}")
    for name, recipe in variants(base).items():
        for seed in options.seeds if options.only in name else ():
            place = options.folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            recipe = replace(recipe, training=replace(recipe.training, seed=seed, patience=0, precision="bfloat16"))
            began = time.process_time()
            chosen = budgeted(recipe, options.data, place, options.minutes)
            timing, began = time.process_time() - began, time.process_time()
            run = fit("translate", chosen, place / "run", options.data)
            minutes = (time.process_time() - began) / 60
            row = {"variant": name, "seed": seed, "steps": chosen.training.steps, "cpu_minutes": round(minutes, 2)}
            for beam in options.beams:
                said = [one.text for one in run.model().translate(sources, beam, recipe.power)]
                row |= {f"beam {beam}": round((found := bleu(said, truth, options.lower))["bleu"], 2)}
            print(json.dumps(row | {"timing_seconds": round(timing), "signature": found["signature"]}), flush=True)


if __name__ == "__main__":
    main()
