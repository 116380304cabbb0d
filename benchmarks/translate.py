"""What each part of a translator is worth: trains and scores a table of variants, each with the same number of steps.

    python benchmarks/translate.py --data train.de train.en --test test.de test.en --steps 1200 --lower

Columns: BLEU of greedy and of beam search on the test files, and the CPU minutes of training, a row a variant and seed.
The schedule of the learning rate fits the steps. One thread.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from steersman.data.records import text_of
from steersman.errors import exit_with_message
from steersman.evaluation.sequences import Nearest, bleu
from steersman.nn.attention import Additive
from steersman.nn.cores import GRU
from steersman.recipes import RECIPES
from steersman.recipes.translate.translator import translate
from steersman.sources.parallel import read
from steersman.training.fit import fit
from steersman.training.sequence_to_sequence import SequenceToSequence


def pairs(data) -> list[tuple[str, str]]:
    """Source and target of each pair."""
    return [(text_of(record["source"]), text_of(record["target"])) for record in read(data)]


def variants(base: SequenceToSequence) -> dict[str, SequenceToSequence]:
    """Recipes by name; each differs from the first in one thing."""
    decoder, encoder = base.decoder, base.encoder
    return {
        "attention, both ways, subwords": base,
        "additive attention": replace(base, decoder=replace(decoder, attention=Additive())),
        "no attention": replace(base, decoder=replace(decoder, attention=None)),
        "reads one way": replace(base, encoder=replace(encoder, core=GRU(512))),
        "words": replace(base, vocabularies=replace(base.vocabularies, pieces="words")),
        "no label smoothing": replace(base, head=replace(base.head, smoothing=0.0)),
        "scheduled sampling": replace(base, decoder=replace(decoder, scheduled_sampling=0.25)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="training texts, source before target")
    parser.add_argument("--test", nargs=2, required=True, help="texts to score on")
    parser.add_argument("--steps", type=int, default=1200, help="steps of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="variants with this in their name")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="the same in all rows")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--lower", action="store_true", help="lower-case everything")
    parser.add_argument("--folder", type=Path, default=Path("runs/translate-table"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = RECIPES["translate"](())
    base = replace(base, vocabularies=replace(base.vocabularies, lower=options.lower))
    sources, truth = zip(*pairs(options.test), strict=True)
    nearest = Nearest(pairs(options.data))
    for name, said in (("the source, copied", sources), ("nearest training sentence", [nearest(s) for s in sources])):
        print(f"{name}: {bleu(said, truth, options.lower)['bleu']:.2f}")
    for name, recipe in variants(base).items():
        for seed in options.seeds if options.only in name else ():
            place = options.folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            training = replace(recipe.training, steps=options.steps, seed=seed, patience=0, precision=options.precision)
            began = time.process_time()
            run = fit("translate", replace(recipe, training=training), place, options.data)
            minutes = (time.process_time() - began) / 60
            row = {
                "variant": name,
                "seed": seed,
                "steps": options.steps,
                "precision": options.precision,
                "cpu_minutes": round(minutes, 2),
            }
            for beam in options.beams:
                said = [one.text for one in translate(run.model(), sources, beam)]
                row |= {f"beam {beam}": round((found := bleu(said, truth, options.lower))["bleu"], 2)}
            print(json.dumps(row | {"signature": found["signature"]}), flush=True)


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
