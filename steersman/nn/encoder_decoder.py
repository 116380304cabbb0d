"""Many to many of different lengths: a reader takes in a source, a decoder says a sequence of tokens about it.

The reader may read anything (a sentence, pictures, sound); the decoder sees only what it hands on: features of the
source's steps and a summary.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Spec
from ..data.batches import Batch, mask_of
from ..data.vocabulary import PAD
from ..errors import UserError
from .attention import Additive, Look, Memory, Multiplicative
from .cores import GRU, Bidirectional, Core, State, map_state, state_tensors
from .decoding import Said, Sampling, beam, greedy
from .heads import Head


class SourceReader(nn.Module):
    """What every reader offers."""

    size: int
    """Features of a step of the source."""
    summary: int
    """Features of the whole."""

    def forward(self, source: Tensor, lengths: Int[Tensor, "batch"]) -> tuple[Tensor, Tensor]:
        """Features (batch source feature), 0 on padding, and the summary (batch feature)."""
        raise AssertionError(f"{type(self).__name__} reads nothing")


@dataclass(frozen=True)
class Reader(Spec):
    """Reads a sentence, both ways: embedding, then a core (Bahdanau et al. 2015)."""

    embedding: int = 256
    """Features of a token."""
    core: Spec = Bidirectional(GRU(256))
    dropout: float = 0.3
    """Share of features dropped while training, before and after the core."""

    BOUNDS = {"embedding": (1, inf), "dropout": (0, 1)}

    def build(self, vocabulary: int) -> "SentenceReader":
        return SentenceReader(self, vocabulary)


class SentenceReader(SourceReader):
    def __init__(self, spec: Reader, vocabulary: int):
        super().__init__()
        self.embedding = _embedding(vocabulary, spec.embedding)
        self.core: Core = spec.core.build(spec.embedding)  # pyright: ignore[reportAttributeAccessIssue]
        self.dropout = Dropout(spec.dropout)
        self.size = self.core.size
        self.summary = self.size + sum(t[0].numel() for t in state_tensors(self.core.initial(1)))

    def forward(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch source feature"], Float[Tensor, "batch summary"]]:
        """The summary is the mean of the features, and the states after the last step either way."""
        y, state = self.core(self.dropout(self.embedding(source)), self.core.initial(len(source)), lengths)
        mean = y.sum(1) / lengths.clamp_min(1).unsqueeze(1)
        return self.dropout(y), torch.cat([mean, *(t.flatten(1) for t in state_tensors(state))], 1)


@dataclass(frozen=True)
class Decoder(Spec):
    """Says token after token: a core, a look at the source, and a core on both.

    What it looks at does not go back into the first core, so that in training all steps are done at once
    (Luong et al. 2015, without input feeding).
    """

    embedding: int = 256
    """Features of a token."""
    core: Spec = GRU(256)
    """Reads what has been said; its output asks."""
    attention: Multiplicative | Additive | None = Multiplicative()
    """None: all that is known of the source is the state it begins with (Sutskever et al. 2014)."""
    upper: Spec = GRU(256)
    """Reads the first core's output beside what it looked at; Memoryless: hands them on."""
    dropout: float = 0.3
    """Share of features dropped while training."""
    sampled: float = 0.0
    """Share of tokens that the model itself draws while training, in place of the true ones (Bengio et al. 2015)."""
    ramp: int = 2000
    """Updates over which that share rises from nought."""

    BOUNDS = {"embedding": (1, inf), "dropout": (0, 1), "sampled": (0, 1), "ramp": (0, inf)}

    def build(self, vocabulary: int, reader: SourceReader) -> "TokenDecoder":
        return TokenDecoder(self, vocabulary, reader)


class TokenDecoder(nn.Module):
    """State: the memory, which no step changes, the core's and the upper core's."""

    def __init__(self, spec: Decoder, vocabulary: int, reader: SourceReader):
        super().__init__()
        self.spec, self.source_size = spec, reader.size
        self.embedding = _embedding(vocabulary, spec.embedding)
        core, upper, look = spec.core, spec.upper, spec.attention
        self.core: Core = core.build(spec.embedding)  # pyright: ignore[reportAttributeAccessIssue]
        self.look: Look | None = look.build(self.core.size, reader.size) if look else None
        context = reader.size if look else 0
        self.upper: Core = upper.build(self.core.size + context)  # pyright: ignore[reportAttributeAccessIssue]
        if not self.core.causal or not self.upper.causal:
            raise UserError("Decoder: its cores can't read what is not said yet; take causal ones")
        self.size = self.upper.size + context  # What was looked at goes on beside the upper core.
        self.bridge = nn.Linear(reader.summary, sum(self._widths()))
        self.dropout = Dropout(spec.dropout)

    def initial(self, batch: int) -> State:
        """As if there were nothing to look at."""
        zeros, keys = self.bridge.weight.new_zeros, self.look.key.out_features if self.look is not None else 0
        memory = (zeros(batch, 0, self.source_size), zeros(batch, 0, keys), zeros(batch, 0).bool())
        return (memory, *self._zeros(batch))

    def begin(self, values: Tensor, there: Tensor, summary: Tensor) -> State:
        """The state before the first token about a source."""
        batch = len(values)
        start = torch.tanh(self.bridge(summary)).to(self.bridge.weight.dtype)
        parts = iter(start.split(self._widths(), 1))
        state = map_state(lambda t: next(parts).view_as(t), self._zeros(batch))
        nothing = Memory(values, values[:, :, :0], there)
        return (tuple(self.look.memory(values, there) if self.look is not None else nothing), *state)

    def forward(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        y, context, lower = self._asked(tokens, state)
        y, upper = self.upper(self.dropout(torch.cat((y, *context), 2)), state[2])
        return self.dropout(torch.cat((y, *context), 2)), (state[0], lower, upper)

    def weights(self, tokens: Int[Tensor, "batch time"], state: State) -> Float[Tensor, "batch time source"]:
        """How much each step of the source is looked at. UserError where the decoder has no attention."""
        if self.look is None:
            raise UserError("this model has no attention: it keeps the source in its state alone")
        y = self.core(self.dropout(self.embedding(tokens)), state[1])[0]
        return self.look(y, Memory(*state[0]))[1]

    def _asked(self, tokens: Tensor, state: State) -> tuple[Tensor, list[Tensor], State]:
        y, after = self.core(self.dropout(self.embedding(tokens)), state[1])
        if self.look is None:
            return y, [], after
        memory = Memory(*state[0])
        # Several rows may ask about one source, as in beam search: their questions stand one after the other.
        questions = y.reshape(len(memory.values), -1, y.shape[2])
        context = self.look(questions, memory)[0].to(y.dtype)
        return y, [context.reshape(*y.shape[:2], -1)], after

    def _widths(self) -> list[int]:
        """Features of each tensor of the state that a source gives."""
        return [t[0].numel() for t in state_tensors(self._zeros(1))]

    def _zeros(self, batch: int) -> State:
        return (self.core.initial(batch), self.upper.initial(batch))


@dataclass(frozen=True)
class Readout(Spec):
    """Features to a vocabulary, by cross-entropy."""

    smoothing: float = 0.1
    """Share of the probability spread over the whole vocabulary in the target (Szegedy et al. 2016)."""
    tied: bool = True
    """The product with the decoder's own embedding (Press & Wolf 2017), else weights of its own."""
    dropout: float = 0.3
    """Share of features dropped while training."""

    BOUNDS = {"smoothing": (0, 1), "dropout": (0, 1)}

    def build(self, features: int, embedding: nn.Embedding) -> "ReadoutHead":
        return ReadoutHead(self, features, embedding)


class ReadoutHead(Head):
    targets = ("target",)

    def __init__(self, spec: Readout, features: int, embedding: nn.Embedding):
        super().__init__()
        vocabulary, width = embedding.weight.shape
        self.spec = spec
        self.narrow = nn.Linear(features, width)
        self.own = None if spec.tied else nn.Parameter(embedding.weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = Dropout(spec.dropout)

    def forward(self, feature: Float[Tensor, "batch time feature"], embedding: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Logits (batch time vocabulary)."""
        weight = embedding if self.own is None else self.own
        return F.linear(self.dropout(torch.tanh(self.narrow(feature))), weight, self.bias)

    def loss(self, raw: Float[Tensor, "n vocabulary"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        return F.cross_entropy(raw.float(), y, reduction="none", label_smoothing=self.spec.smoothing)

    def point(self, raw: Float[Tensor, "*batch vocabulary"]) -> Int[Tensor, "*batch"]:
        """The likeliest token."""
        return raw.argmax(-1)


class EncoderDecoder(nn.Module):
    """Reader, decoder and read-out; has the ways of `Model`, and searches.

    Inputs are the true tokens, the begin mark first (teacher forcing), targets the tokens after them. The state holds
    the source; a batch that brings sources begins anew with them, and hands no state on.
    """

    causal = True
    passes: Tensor
    """Batches trained on, for the ramp of the sampled tokens."""

    def __init__(self, reader: SourceReader, decoder: TokenDecoder, head: ReadoutHead):
        super().__init__()
        self.encoder, self.decoder, self.head = reader, decoder, head
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    @property
    def device(self) -> torch.device:
        return self.passes.device

    def initial(self, batch: int = 1) -> State:
        """The state before a source is read."""
        return self.decoder.initial(batch)

    def pretrained(self) -> list[nn.Parameter]:
        """There are none: all weights begin at random."""
        return []

    def told(self, batch: Batch) -> tuple[Tensor, ...]:
        """What `forward` is told beside its inputs: the sources."""
        return batch.about

    def read(self, source: Tensor, lengths: Int[Tensor, "batch"]) -> State:
        """The state after reading sources, before the first token."""
        values, summary = self.encoder(source, lengths)
        return self.decoder.begin(values, mask_of(lengths, source.shape[1]), summary)

    def forward(
        self,
        x: Int[Tensor, "batch time"],
        state: State,
        fresh: Bool[Tensor, "batch"] | None = None,
        source: Tensor | None = None,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time vocabulary"], State]:
        """Logits of the tokens after `x`; about `source`, or about what the state holds."""
        if source is None or lengths is None:
            feature, state = self.decoder(x, state)
            return self.head(feature, self.decoder.embedding.weight), state
        begun = self.read(source, lengths)
        if self.training and self.decoder.spec.sampled:
            x = self._mixed(x, begun)
            self.passes += 1
        feature, _ = self.decoder(x, begun)
        return self.head(feature, self.decoder.embedding.weight), self.initial(len(x))

    def step(self, token: Int[Tensor, "row"], state: State) -> tuple[Float[Tensor, "row vocabulary"], State]:
        """One token, for the searches of `decoding`."""
        logits, state = self(token.unsqueeze(1), state)
        return logits[:, 0], state

    def loss(self, batch: Batch, raw: Float[Tensor, "batch time vocabulary"]) -> tuple[Tensor, Tensor]:
        """Sum of the weighted losses and sum of the weights."""
        there = batch.mask > 0
        weight = batch.mask[there]
        return (self.head.loss(raw[there], batch.y[there]) * weight).sum(), weight.sum()

    @torch.no_grad()
    def _mixed(self, x: Tensor, state: State) -> Tensor:
        """The true tokens, some exchanged for what the model draws after those before them.

        No gradient goes through what is drawn, so the pass that learns can take all steps at once.
        """
        spec = self.decoder.spec
        share = spec.sampled * min(1.0, self.passes.item() / max(1, spec.ramp))
        shown = [x[:, 0]]
        for t in range(1, x.shape[1]):
            logits, state = self.step(shown[-1], state)
            own = torch.rand(len(x), device=x.device) < share
            shown.append(torch.where(own & (x[:, t] != PAD), Sampling().draw(logits), x[:, t]))
        return torch.stack(shown, 1)

    @torch.no_grad()
    def say(
        self, source: Tensor, lengths: Int[Tensor, "batch"], longest: Any, width: int = 1, power: float = 1.0
    ) -> list[list[Said]]:
        """What is said about each source, best first: one greedily, or as many as the beam is wide."""
        training = self.training
        self.eval()
        try:
            # The memory is apart, one row a source, while the rows of a beam change places.
            memory, *state = self.read(source, lengths)

            def step(token: Tensor, state: State, memory: State) -> tuple[Tensor, State]:
                logits, (_, *after) = self.step(token, (memory, *state))
                return logits, tuple(after)

            if width == 1:
                return [[said] for said in greedy(step, tuple(state), len(source), longest, memory)]
            return beam(step, tuple(state), len(source), longest, width, power, memory)
        finally:
            self.train(training)


def build(encoder: Spec, decoder: Spec, head: Spec, source: int, target: int) -> EncoderDecoder:
    """The model of three specs and the sizes of two vocabularies. UserError where a spec is of another part."""
    try:
        reader = encoder.build(source)  # pyright: ignore[reportAttributeAccessIssue]
        speaker = decoder.build(target, reader)  # pyright: ignore[reportAttributeAccessIssue]
        readout = head.build(speaker.size, speaker.embedding)  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, TypeError) as error:
        kinds = ", ".join(type(spec).__name__ for spec in (encoder, decoder, head))
        raise UserError(f"{kinds} are no encoder, decoder and read-out ({error})") from error
    return EncoderDecoder(reader, speaker, readout)


class Dropout(nn.Module):
    """Dropout that takes eight decisions of one random number, so the share is a multiple of 1/256.

    torch's own takes a number each, which is a sixth of the time in which a translator is trained.
    """

    def __init__(self, share: float):
        super().__init__()
        self.dropped = round(256 * share)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropped:
            return x
        if self.dropped == 256:
            return x * 0
        count = x.numel()
        draws = torch.empty(-(-count // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[:count].view(x.shape) >= self.dropped
        return x * (kept * (256 / (256 - self.dropped))).to(x.dtype)


def _embedding(vocabulary: int, width: int) -> nn.Embedding:
    """Small numbers, so that tied logits begin small."""
    table = nn.Embedding(vocabulary, width, padding_idx=PAD)
    nn.init.uniform_(table.weight, -0.1, 0.1)
    with torch.no_grad():
        table.weight[PAD] = 0
    return table
