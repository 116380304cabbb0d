"""The language of a sentence by its first characters: a recurrent network beside naive Bayes on character n-grams.

    python benchmarks/languages.py --data multi30k/data/task1/raw

Multi30k's four languages, its own training, validation and test parts; one training for each number of characters and
seed, all with the recipe's own settings. Naive Bayes (scikit-learn) counts all n-grams of one character to five, its
smoothing chosen on the validation part. Columns: accuracy on the test part, its sentences that were wrong, and CPU
seconds of training. One thread.
"""

import argparse
import gzip
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman.errors import exit_with_message
from steersman.evaluation.report import report_run
from steersman.recipes.text.classify import classify_text
from steersman.training.fit import fit
from steersman.training.recipe import open_records

LANGUAGES = ("cs", "de", "en", "fr")
PARTS = {"train": "train", "val": "validation", "test_2016_flickr": "test"}
SMOOTHING = (1.0, 0.3, 0.1, 0.03, 0.01)


def sentences(folder: Path) -> list[dict[str, str]]:
    """A row a sentence: text, language, part."""
    rows = []
    for name, part in PARTS.items():
        for language in LANGUAGES:
            lines = gzip.decompress((folder / f"{name}.{language}.gz").read_bytes()).decode().splitlines()
            rows += [{"text": line.strip(), "language": language, "part": part} for line in lines if line.strip()]
    return rows


def naive_bayes(rows: list[dict[str, str]], characters: int) -> tuple[np.ndarray, float]:
    """Which test sentences it tells rightly, and CPU seconds of training."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    of = {part: [row for row in rows if row["part"] == part] for part in ("train", "validation", "test")}
    texts = {part: [row["text"][: characters or None] for row in held] for part, held in of.items()}
    labels = {part: np.array([row["language"] for row in held]) for part, held in of.items()}
    begun = time.process_time()
    counts = CountVectorizer(analyzer="char", ngram_range=(1, 5), lowercase=False)
    seen = {
        part: counts.fit_transform(texts[part]) if part == "train" else counts.transform(texts[part]) for part in of
    }
    models = [MultinomialNB(alpha=alpha).fit(seen["train"], labels["train"]) for alpha in SMOOTHING]
    best = max(models, key=lambda model: model.score(seen["validation"], labels["validation"]))
    return best.predict(seen["test"]) == labels["test"], time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train.en.gz and the others")
    parser.add_argument("--characters", type=int, nargs="+", default=[5, 20, 0], help="first characters; 0: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/languages"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = sentences(options.data)
    options.folder.mkdir(parents=True, exist_ok=True)
    table = options.folder / "sentences.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{'characters':>10} {'model':28} {'accuracy':>9} {'wrong':>6} {'CPU s':>6}", flush=True)
    for characters in options.characters:
        right, seconds = naive_bayes(rows, characters)
        print(line(characters, "naive Bayes, 1 to 5 letters", right.mean(), (~right).sum(), seconds), flush=True)
        for seed in options.seeds:
            recipe = classify_text()
            recipe = replace(recipe, part="part", characters=characters, training=replace(recipe.training, seed=seed))
            records = open_records(recipe, [str(table)])
            begun = time.process_time()
            folder = options.folder / f"{characters}-{seed}"
            run = fit("classify-text", recipe, folder, [str(table)], records=records, say=lambda text: None)
            seconds = time.process_time() - begun
            scores = report_run(run)
            wrong = round((1 - scores["accuracy"]) * scores["items"])
            print(line(characters, f"classify-text, seed {seed}", scores["accuracy"], wrong, seconds), flush=True)


def line(characters: int, name: str, accuracy: float, wrong: int, seconds: float) -> str:
    return f"{characters or 'all':>10} {name:28} {accuracy:9.4f} {wrong:6d} {seconds:6.0f}"


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
