"""What it gains to search for the translations of many sentences at once.

    python benchmarks/searching.py --run RUN --data test.de

Three ways to the same translations on one thread, by CPU time (on several, by the clock), each over the same sentences
in turn, the best of three rounds: all sentences in batches; the same search a sentence at a time; and a loop over the
hypotheses of one sentence at a time, each with a state and a step of its own, as the search is written in textbooks.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from steersman.data.batches import Ragged
from steersman.data.pairs import padded
from steersman.data.vocabulary import BEGIN, END, PAD, UNKNOWN
from steersman.errors import exit_with_message
from steersman.nn.decoding import normalised
from steersman.nn.encoder_decoder import EncoderDecoder
from steersman.recipes.translate.translator import check_translates, translate
from steersman.sources.parallel import lines
from steersman.training.run import load


@torch.no_grad()
def by_hypothesis(model: EncoderDecoder, texts: list[str], width: int, power: float) -> list[str]:
    """A beam search of lists and loops."""
    said = []
    for text in texts:
        tokens = model.vocabularies["source"].encode(text)
        limit = 2 * len(tokens) + 10
        state = model.read({"source": Ragged(*padded([np.array(tokens)]))})
        live, ended = [([], 0.0, BEGIN, state)], []
        while live and not _over(live, ended, width, power) and len(live[0][0]) < limit:
            grown = []
            for before, score, last, state in live:
                logits, after = model.step(torch.tensor([last]), state)
                logits[:, [PAD, BEGIN, UNKNOWN]] = -torch.inf
                best, token = logits.log_softmax(1)[0].topk(2 * width)
                grown += [(before, score + s, t, after) for s, t in zip(best.tolist(), token.tolist(), strict=True)]
            grown = sorted(grown, key=lambda one: -one[1])[: 2 * width]
            ended += [(normalised(s, len(b) + 1, power), b) for b, s, t, _ in grown[:width] if t == END]
            live = [([*b, t], s, t, state) for b, s, t, state in grown if t != END][:width]
        best = max(ended, key=lambda one: one[0])[1] if ended else live[0][0]
        said.append(model.vocabularies["target"].decode(best))
    return said


def _over(live: list, ended: list, width: int, power: float) -> bool:
    """Enough have ended, and none that goes on is as good."""
    worst = sorted(ended, key=lambda one: -one[0])[width - 1 : width]
    return bool(worst) and bool(live[0][0]) and worst[0][0] >= normalised(live[0][1], len(live[0][0]), power)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a trained translator")
    parser.add_argument("--data", required=True, type=Path, help="sentences, one a line")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=100, help="sentences for the ways that take one at a time")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--power", type=float, default=1.0)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    model, texts = load(options.run), lines(options.data)[: options.sentences]
    check_translates(model)
    few = texts[:: max(1, len(texts) // options.slow)][: options.slow]
    search = options.beam, options.power
    ways = {f"batches of {n}": (lambda n=n: translate(model, texts, *search, rows=n), len(texts)) for n in options.rows}
    ways["a sentence at a time"] = (lambda: translate(model, few, *search, rows=1), len(few))
    ways["a hypothesis at a time"] = (lambda: by_hypothesis(model, few, *search), len(few))
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):
        for name, (way, count) in ways.items():
            began = clock()
            way()
            best[name] = min(best[name], (clock() - began) / count)
    fastest = min(best.values())
    for name, seconds in best.items():
        print(f"{name:<24} {1e3 * seconds:8.2f} ms a sentence {seconds / fastest:7.1f}")
    together = {one.source: one.text for one in translate(model, texts, *search)}
    same = sum(together[text] == other for text, other in zip(few, by_hypothesis(model, few, *search), strict=True))
    print(f"the first and the last way agree on {same} of {len(few)} sentences")


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
