"""Characters: a trained run under three protocols, beside a small transformer; and how fast it writes.

    python benchmarks/chars.py scores RUN [--dynamic RATE]   nats a character of a run; also as it goes on learning
    python benchmarks/chars.py race --text FILE --minutes 4  both trained for the same CPU time, one thread
    python benchmarks/chars.py speed                         characters a second, beside a loop over nn.LSTM

Protocols, all on the last tenth of the text: one pass over it with the state carried; blocks of 256 characters, each
from nothing; blocks of 64. The transformer is that of nanoGPT's recipe for a CPU (github.com/karpathy/nanoGPT, README:
4 layers, 4 heads, 128 units, a context of 64, batches of 12), of torch's own layers; it has no state to carry, so in
blocks longer than its context a window slides on by 16 characters.
"""

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steersman.data.symbols import Symbols
from steersman.errors import UserError, exit_with_message
from steersman.nn.cores import LSTM
from steersman.nn.decoding import Sampling
from steersman.nn.model import Model
from steersman.recipes import RECIPES
from steersman.recipes.text.dynamic import Dynamic, dynamic_evaluation
from steersman.recipes.text.generate import Speaker, nats_in_blocks
from steersman.training.fit import fit
from steersman.training.recipe import open_records
from steersman.training.run import Run

BLOCKS = (256, 64)
CONTEXT, SLIDE = 64, 16


class Transformer(nn.Module):
    def __init__(self, classes: int, layers: int = 4, heads: int = 4, width: int = 128):
        super().__init__()
        self.token, self.place = nn.Embedding(classes, width), nn.Embedding(CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes, bias=False)
        for name, p in self.named_parameters():
            if p.ndim > 1:
                last = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if last else 0.02)
        self.head.weight = self.token.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        y = self.token(x) + self.place.weight[:steps]
        return self.head(self.layers(y, self.mask[:steps, :steps], is_causal=True))


def trained_transformer(train: Tensor, classes: int, minutes: float, seed: int) -> tuple[Transformer, int, float]:
    """The model, its steps and CPU minutes: AdamW, warm-up over 100 steps, a cosine to a tenth."""
    torch.manual_seed(seed)
    model, batch, rate = Transformer(classes), 12, 1e-3
    split = [[p for p in model.parameters() if (p.ndim > 1) == big] for big in (True, False)]
    groups = [{"params": split[0], "weight_decay": 0.1}, {"params": split[1], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, rate, betas=(0.9, 0.99))

    def step(number: int, steps: int) -> None:
        share = max(0.0, number - 100) / max(1, steps - 100)
        for group in optimiser.param_groups:
            cosine = 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, share)))
            group["lr"] = rate * ((number + 1) / 100 if number < 100 else cosine)
        starts = torch.randint(len(train) - CONTEXT - 1, (batch,))
        rows = torch.stack([train[s : s + CONTEXT + 1] for s in starts])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    began, done = time.process_time(), 60
    for number in range(done):
        step(number, 10**9)
    steps = max(200, round(60 * minutes / (time.process_time() - began) * done))
    for number in range(done, steps):
        step(number, steps)
    return model.eval(), steps, (time.process_time() - began) / 60


@torch.no_grad()
def transformer_nats(model: Transformer, text: Tensor, block: int) -> float:
    """Blocks of `block` characters, each from nothing; 0: the whole text is one block."""
    block = block or len(text) - 1
    windows, places, firsts = [], [], []
    for start in range(0, (len(text) - 1) // block * block, block):
        for first in range(0, block, CONTEXT if block == CONTEXT else SLIDE):
            from_ = max(0, first + SLIDE - CONTEXT) if block > CONTEXT else first
            to = min(block, from_ + CONTEXT)
            windows.append(start + from_)
            places.append((first - from_, min(to, (first + SLIDE) if block > CONTEXT else to) - from_))
            firsts.append(to - from_)
    total, count = 0.0, 0
    for i in range(0, len(windows), 256):
        rows = torch.stack(
            [F.pad(text[w : w + CONTEXT + 1], (0, max(0, w + CONTEXT + 1 - len(text)))) for w in windows[i : i + 256]]
        )
        losses = F.cross_entropy(model(rows[:, :-1]).transpose(1, 2), rows[:, 1:], reduction="none")
        for row, (a, b) in zip(losses, places[i : i + 256], strict=True):
            total, count = total + float(row[a:b].double().sum()), count + b - a
    return total / count


def protocols(model: Model, codes: np.ndarray) -> dict[str, float]:
    """Scores of a run of ours, on a text."""
    model.eval()
    return {"carried": nats_in_blocks(model, codes, len(codes) - 1)} | {
        f"blocks of {block}": nats_in_blocks(model, codes, block) for block in BLOCKS
    }


def codes_of(run: Run, part: str) -> np.ndarray:
    """The codes of a part of the text, with the last one that is only foretold."""
    records = run.records()[part]
    if len(records) != 1:
        raise UserError(f"{run.folder} has {len(records)} texts in its {part} part; a run of one text is scored here")
    (record,) = records
    here, after = (np.asarray(record[name].values[:]) for name in (run.recipe.inputs, run.recipe.head.targets[0]))
    return np.concatenate((here, after[-1:]))


def show(name: str, minutes: float | None, found: dict[str, float]) -> None:
    shown = " | ".join(f"{nats:.3f}" for nats in found.values())
    print(f"| {name} | {'' if minutes is None else f'{minutes:.1f}'} | {shown} |", flush=True)


def scores(options: argparse.Namespace) -> None:
    run = Run.open(Path(options.run))
    codes, model = codes_of(run, options.part), run.model()
    show(options.run, None, protocols(model, codes))
    known = codes_of(run, "train") if options.dynamic else codes
    for rate in options.dynamic:
        found = dynamic_evaluation(model, codes, known, Dynamic(rate, options.decay))
        show(f"... goes on learning, rate {rate:g}, decay {options.decay:g}", None, {"carried": found})


def race(options: argparse.Namespace) -> None:
    recipe = RECIPES["chars"](())
    open_records(recipe, (options.text,))  # A text that can't be read is refused before anything is trained.
    contents = Path(options.text).read_text()
    for seed in range(options.seeds):
        training = replace(recipe.training, seed=seed, precision="bfloat16", validate_every=10**6, steps=40)
        folder = Path(tempfile.mkdtemp())
        began = time.process_time()
        fit("chars", replace(recipe, training=training), folder / "first", (options.text,), say=lambda text: None)
        one = (time.process_time() - began) / 40
        training = replace(training, steps=round(60 * options.minutes / one), checkpoint_every=10**6)
        began = time.process_time()
        run = fit("chars", replace(recipe, training=training), folder / "run", (options.text,), say=lambda text: None)
        minutes = (time.process_time() - began) / 60
        held_out = codes_of(run, "test")
        show(f"chars, {training.steps} steps, seed {seed}", minutes, protocols(run.model(), held_out))

        symbols = Symbols(run.recipe.encoder.symbols)
        classes = torch.from_numpy(symbols.encode(contents)).long()
        test = torch.from_numpy(symbols.classes(held_out)).long()
        model, steps, minutes = trained_transformer(
            classes[: int(0.9 * len(classes))], len(symbols), options.minutes, seed
        )
        found = {"carried": transformer_nats(model, test, 0)}
        found |= {f"blocks of {block}": transformer_nats(model, test, block) for block in BLOCKS}
        show(f"transformer, {steps} steps, seed {seed}", minutes, found)


def speed(options: argparse.Namespace) -> None:
    """Ours and a loop over nn.LSTM in turn, one thread, CPU time; the same size, drawing included."""
    torch.manual_seed(0)
    symbols = "".join(map(chr, range(32, 96)))
    recipe = RECIPES["chars"](())
    recipe = replace(recipe, encoder=replace(recipe.encoder, symbols=symbols), core=LSTM(512),
                     head=replace(recipe.head, symbols=symbols))  # fmt: skip
    model = recipe.build((1,)).eval()
    speaker = Speaker(model)
    embedding, layer, head = nn.Embedding(65, 64), nn.LSTM(64, 512, batch_first=True), nn.Linear(512, 65)

    def ours(length: int) -> None:
        for _ in speaker.speak("A", length, Sampling(temperature=0.8)):
            pass

    @torch.inference_mode()
    def theirs(length: int) -> None:
        state, symbol = None, torch.tensor([[1]])
        for _ in range(length):
            y, state = layer(embedding(symbol), state)
            symbol = torch.multinomial((head(y[:, -1]) / 0.8).softmax(-1), 1)

    taken: dict[str, list[float]] = {"ours": [], "nn.LSTM": []}
    for _ in range(9):
        for name, write in (("ours", ours), ("nn.LSTM", theirs)):
            began = time.process_time()
            write(1000)
            taken[name].append(1000 / (time.process_time() - began))
    middle = {name: float(np.median(rates)) for name, rates in taken.items()}
    ratios = np.divide(taken["ours"], taken["nn.LSTM"])
    print(
        f"characters a CPU second: ours {middle['ours']:.0f}, a loop over nn.LSTM {middle['nn.LSTM']:.0f}: "
        f"{np.median(ratios):.1f} times ({ratios.min():.1f} to {ratios.max():.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, work in (("scores", scores), ("race", race), ("speed", speed)):
        command = commands.add_parser(name)
        command.set_defaults(work=work)
        if name == "scores":
            command.add_argument("run")
            command.add_argument("--part", choices=("test", "validation"), default="test")
            command.add_argument("--dynamic", type=float, nargs="+", default=[], metavar="RATE", help="behind RUN")
            command.add_argument("--decay", type=float, default=Dynamic().decay, help="back to the trained weights")
        if name == "race":
            command.add_argument("--text", required=True)
            command.add_argument("--minutes", type=float, default=4.0, help="CPU minutes of training for each")
            command.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.work is not speed:
        print("| model | CPU minutes | carried | blocks of 256 | blocks of 64 |\n" + "|---" * 5 + "|")
    options.work(options)


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
