"""One to many: a model of what comes next, its own words fed back to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

import numpy as np
import torch

from ...errors import UserError
from ...json_types import JsonObject
from ...nn.decoding import Sampling
from ...nn.encoders import reads_symbols
from ...nn.model import Model
from ...nn.stepper import Stepper
from .reading import text_head


class Speaker:
    """A text model one symbol at a time, without torch in a step: `logits = speaker.hear(symbol)`.

    UserError where the model is none of a text.
    """

    def __init__(self, model: Model):
        head, encoder = text_head(model), model.encoder
        assert reads_symbols(encoder)
        if model.skip:
            raise UserError("a text model whose head sees the encoder, too, can't be streamed; train it without skip")
        self.symbols = head.symbols
        self._vectors = encoder.vectors.weight.detach().float().cpu().numpy()
        self._weight = head.linear.weight.detach().float().cpu().numpy()
        self._bias = head.linear.bias.detach().float().cpu().numpy()
        self._stepper = Stepper(model.core)

    def hear(self, symbol: int) -> np.ndarray:
        """What may come after a symbol: a logit a class."""
        return self._weight @ self._stepper.step(self._vectors[symbol]) + self._bias

    def beginning(self) -> str:
        """A prompt where none is given: a new line or a space, if it is known, else the first character that is."""
        return next((c for c in "\n " if c in self.symbols.characters), self.symbols.characters[:1] or "\n")

    def reset(self) -> None:
        """Forgets all it heard."""
        self._stepper.reset()

    def speak(self, prompt: str, length: int, sampling: Sampling, seed: int = 0) -> Iterator[int]:
        """Classes that follow on a prompt, one after the other. UserError where it has unknown characters."""
        heard = self.symbols.encode(prompt)
        if not len(heard):
            raise UserError("--prompt is empty; give the model something to go on from")
        self.reset()
        generator = torch.Generator().manual_seed(seed)
        logits = np.zeros(len(self.symbols))
        for symbol in heard:
            logits = self.hear(int(symbol))
        for _ in range(length):
            if self.symbols.characters:
                logits[0] = -inf  # What is not known can't be said.
            symbol = int(sampling.draw(torch.from_numpy(logits)[None], generator))
            yield symbol
            logits = self.hear(symbol)


@dataclass(frozen=True)
class Continuation:
    """A text model that writes on from a prompt, as the live server asks it to."""

    speaker: Speaker
    sampling: Sampling = Sampling(temperature=0.7)
    length: int = 300
    """Symbols that follow on the prompt."""

    def say(self, text: str) -> JsonObject:
        """`text`: the same for the same prompt. UserError where the prompt has unknown characters."""
        found = bytearray()
        written(self.speaker, self.speaker.speak(text, self.length, self.sampling), found.extend)
        return {"text": found.decode(errors="replace")}


def written(speaker: Speaker, symbols: Iterator[int], write: Callable[[bytes], object]) -> int:
    """Writes symbols as UTF-8 as they come; how many there were."""
    count = 0
    for symbol in symbols:
        code = int(speaker.symbols.codes(np.array([symbol]))[0])
        write(chr(code).encode() if speaker.symbols.characters else bytes([code]))
        count += 1
    return count


@torch.no_grad()
def nats_in_blocks(model: Model, codes: np.ndarray, block: int, rows: int = 256) -> float:
    """Mean loss over a text cut into blocks, each from a zero state; `codes` as the model's streams hold them."""
    text_head(model)
    whole = (len(codes) - 1) // block * block
    x = model.encoder.prepare(torch.from_numpy(codes[:whole].astype(np.int64)[:, None])).view(-1, block, 1)
    y = torch.from_numpy(codes[1 : whole + 1].astype(np.int64)).view(-1, block, 1)
    total = 0.0
    for part_x, part_y in zip(x.split(rows), y.split(rows), strict=True):
        raw, _ = model.run(part_x, model.initial(len(part_x)))
        total += float(model.head.loss(raw.float(), part_y).double().sum())
    return total / whole
