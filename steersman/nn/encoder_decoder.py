"""Many to many of different lengths: sources are read, then a decoder says a sequence of tokens about them.

A source may be anything (a sentence, a picture, sound), and there may be several; the decoder sees only what their
encoder hands on: features of the steps that it made, which of them exist, and a summary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Spec
from ..data.batches import Batch, Ragged
from ..data.pairs import Pair, batch_of
from ..data.vocabulary import PAD, Vocabulary
from ..errors import UserError
from .attention import Additive, Attention, Keyed, Multiplicative
from .cores import GRU, Bidirectional, Core, CoreSpec, State, map_state, state_tensors
from .decoding import PLAIN, Hypothesis, Sampling, beam, greedy
from .heads import Head, HeadSpec
from .model import SequenceModel

Sources = Mapping[str, Ragged]


class Memory(NamedTuple):
    """Sources that have been read."""

    values: Float[Tensor, "batch step feature"]
    """Features of the steps that the encoder made of them, which need not be their own; 0 on padding."""
    mask: Bool[Tensor, "batch step"]
    """Which of those steps exist."""
    summary: Float[Tensor, "batch summary"]
    """Features of the whole."""


class SourceEncoder(nn.Module):
    """What every encoder of sources offers."""

    sources: tuple[str, ...]
    """Names of the streams that it reads."""
    texts: tuple[str, ...] = ()
    """Names of the streams that are texts: they are read as the numbers of a vocabulary's pieces."""
    films: bool = False
    """Whether several pictures are one film to it."""
    size: int
    """Features of a step."""
    summary: int
    """Features of the whole."""

    def prepare(self, name: str, raw: Tensor) -> Tensor:
        """Raw steps of a source (step ...) to what is kept and fed to `forward`."""
        return raw

    def fit(self, name: str, values: Sequence[np.ndarray]) -> None:
        """Takes the normaliser of a source from the training records' prepared steps."""

    def forward(self, sources: Sources) -> Memory:
        raise NotImplementedError(f"{type(self).__name__} reads nothing")


class SourceEncoderSpec(Spec):
    """Spec of a source encoder."""

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> SourceEncoder:
        """The encoder for streams of these shapes of a step; of a text, how many pieces its vocabulary has."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the streams that it reads."""
        raise NotImplementedError(f"{type(self).__name__} names no source")

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the streams that are texts."""
        return ()


@dataclass(frozen=True)
class TextEncoder(SourceEncoderSpec):
    """Reads a text, both ways: embedding, then a core (Bahdanau et al. 2015)."""

    embedding: int = 256
    """Features of a token."""
    core: CoreSpec = Bidirectional(GRU(256))
    dropout: float = 0.3
    """Share of features dropped while training, before and after the core."""
    stream: str = "source"
    """Name of the text among the record's streams."""
    start: float = 0.1
    """Largest number of an embedding at first. Where a text stands beside a picture, larger ones make it heard."""

    BOUNDS = {"embedding": (1, inf), "dropout": (0, 1), "start": (1e-6, inf)}

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> "TextSourceEncoder":
        return TextSourceEncoder(self, *shapes[self.stream])

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.stream,)

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.stream,)


class TextSourceEncoder(SourceEncoder):
    def __init__(self, spec: TextEncoder, vocabulary: int):
        super().__init__()
        self.sources = self.texts = (spec.stream,)
        self.embedding = _embedding(vocabulary, spec.embedding, spec.start)
        self.core: Core = spec.core.build(spec.embedding)
        self.dropout = Dropout(spec.dropout)
        self.size = self.core.size
        self.summary = self.size + sum(t[0].numel() for t in state_tensors(self.core.initial(1)))

    def forward(self, sources: Sources) -> Memory:
        """The summary is the mean of the features, and the states after the last step either way."""
        tokens, lengths = (source := sources[self.sources[0]]).values, source.lengths
        y, state = self.core(self.dropout(self.embedding(tokens)), self.core.initial(len(tokens)), lengths)
        mean = y.sum(1) / lengths.clamp_min(1).unsqueeze(1)
        summary = torch.cat([mean, *(t.flatten(1) for t in state_tensors(state))], 1)
        return Memory(self.dropout(y), source.mask, summary)


@dataclass(frozen=True)
class Together(SourceEncoderSpec):
    """Several sources, each with its own encoder: a picture and a question about it."""

    encoders: tuple[SourceEncoderSpec, ...] = ()
    """Encoders, one a source; the decoder looks at the steps of all."""

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> "TogetherEncoder":
        twice = [name for name in self.sources if self.sources.count(name) > 1]
        if twice or not self.encoders:
            what = f"{twice[0]!r} is read twice" if twice else "encoders is empty"
            raise UserError(f"Together: {what}; give it one encoder for each source, each with its own stream")
        return TogetherEncoder([encoder.build(shapes) for encoder in self.encoders])

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(name for encoder in self.encoders for name in encoder.sources)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(name for encoder in self.encoders for name in encoder.texts)


class TogetherEncoder(SourceEncoder):
    """Steps of all its encoders one after the other, brought to the width of the widest."""

    def __init__(self, encoders: list[SourceEncoder]):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.sources = tuple(name for encoder in encoders for name in encoder.sources)
        self.texts = tuple(name for encoder in encoders for name in encoder.texts)
        self.size, self.summary = max(e.size for e in encoders), sum(e.summary for e in encoders)
        self.widen = nn.ModuleList(
            nn.Identity() if e.size == self.size else nn.Linear(e.size, self.size) for e in encoders
        )

    def prepare(self, name: str, raw: Tensor) -> Tensor:
        return self._of(name).prepare(name, raw)

    def fit(self, name: str, values: Sequence[np.ndarray]) -> None:
        self._of(name).fit(name, values)

    def forward(self, sources: Sources) -> Memory:
        memories: list[Memory] = [encoder(sources) for encoder in self.encoders]
        values = [widen(memory.values) for widen, memory in zip(self.widen, memories, strict=True)]
        mask = torch.cat([memory.mask for memory in memories], 1)
        summary = torch.cat([memory.summary for memory in memories], 1)
        return Memory(torch.where(mask.unsqueeze(2), torch.cat(values, 1), 0.0), mask, summary)

    @property
    def first(self) -> SourceEncoder:
        """The encoder whose steps come first."""
        return self.encoders[0]  # pyright: ignore[reportReturnType]

    def _of(self, name: str) -> SourceEncoder:
        return next(encoder for encoder in self.encoders if name in encoder.sources)  # pyright: ignore[reportReturnType, reportOperatorIssue]


@dataclass(frozen=True)
class Decoder(Spec):
    """Says token after token: a core, a look at the source, and a core on both.

    What it looks at does not go back into the first core, so that in training all steps are done at once
    (Luong et al. 2015, without input feeding).
    """

    embedding: int = 256
    """Features of a token."""
    core: CoreSpec = GRU(256)
    """Core that reads what has been said; its output asks."""
    attention: Multiplicative | Additive | None = Multiplicative()
    """Attention to the source; None: all it knows of the source is its first state (Sutskever et al. 2014)."""
    upper: CoreSpec = GRU(256)
    """Core that reads the first one's output beside what it looked at; Memoryless: hands them on."""
    dropout: float = 0.3
    """Share of features dropped while training."""
    scheduled_sampling: float = 0.0
    """Share of tokens that the model itself draws while training, in place of the true ones (Bengio et al. 2015)."""
    sampling_ramp: int = 2000
    """Updates over which that share rises from zero."""

    BOUNDS = {"embedding": (1, inf), "dropout": (0, 1), "scheduled_sampling": (0, 1), "sampling_ramp": (0, inf)}

    def build(self, vocabulary: int, encoder: SourceEncoder) -> "TokenDecoder":
        return TokenDecoder(self, vocabulary, encoder)


class TokenDecoder(nn.Module):
    """State: the memory, which no step changes, the core's and the upper core's."""

    def __init__(self, spec: Decoder, vocabulary: int, encoder: SourceEncoder):
        super().__init__()
        self.spec, self.source_size = spec, encoder.size
        self.embedding = _embedding(vocabulary, spec.embedding)
        self.core: Core = spec.core.build(spec.embedding)
        self.look: Attention | None = spec.attention.build(self.core.size, encoder.size) if spec.attention else None
        context = encoder.size if spec.attention else 0
        self.upper: Core = spec.upper.build(self.core.size + context)
        if not self.core.causal or not self.upper.causal:
            raise UserError("Decoder: its cores can't read what is not said yet; take causal ones")
        self.size = self.upper.size + context  # What was looked at goes on beside the upper core.
        self.bridge = nn.Linear(encoder.summary, sum(self._widths()))
        self.dropout = Dropout(spec.dropout)

    def initial(self, batch: int) -> State:
        """First state, as if there were nothing to look at."""
        zeros, keys = self.bridge.weight.new_zeros, self.look.key.out_features if self.look is not None else 0
        memory = (zeros(batch, 0, self.source_size), zeros(batch, 0, keys), zeros(batch, 0).bool())
        return (memory, *self._zeros(batch))

    def begin(self, memory: Memory) -> State:
        """The state before the first token about sources."""
        values, mask, summary = memory
        batch = len(values)
        start = torch.tanh(self.bridge(summary)).to(self.bridge.weight.dtype)
        parts = iter(start.split(self._widths(), 1))
        state = map_state(lambda t: next(parts).view_as(t), self._zeros(batch))
        nothing = Keyed(values, values[:, :, :0], mask)
        return (tuple(self.look.memory(values, mask) if self.look is not None else nothing), *state)

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
        return self.look(y, Keyed(*state[0]))[1]

    def _asked(self, tokens: Tensor, state: State) -> tuple[Tensor, list[Tensor], State]:
        y, after = self.core(self.dropout(self.embedding(tokens)), state[1])
        if self.look is None:
            return y, [], after
        memory = Keyed(*state[0])
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
class Readout(HeadSpec):
    """Features to a vocabulary, by cross-entropy."""

    smoothing: float = 0.1
    """Share of the probability spread over the whole vocabulary in the target (Szegedy et al. 2016)."""
    tied: bool = True
    """Whether it shares the decoder's embedding (Press & Wolf 2017), else it has weights of its own."""
    dropout: float = 0.3
    """Share of features dropped while training."""

    targets: ClassVar[tuple[str, ...]] = ("target",)  # pyright: ignore[reportIncompatibleVariableOverride]
    BOUNDS = {"smoothing": (0, 1), "dropout": (0, 1)}

    def over(self, features: int, embedding: nn.Embedding) -> "ReadoutHead":
        """The read-out of features onto the vocabulary of an embedding."""
        return ReadoutHead(self, features, embedding)


class ReadoutHead(Head):
    targets = streams = ("target",)

    def __init__(self, spec: Readout, features: int, embedding: nn.Embedding):
        super().__init__()
        vocabulary, width = embedding.weight.shape
        self.spec = spec
        self.narrow = nn.Linear(features, width)
        self.own = None if spec.tied else nn.Parameter(embedding.weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = Dropout(spec.dropout)

    def forward(self, feature: Float[Tensor, "batch time feature"], embedding: Tensor) -> Tensor:
        """Logits (batch time vocabulary)."""
        weight = embedding if self.own is None else self.own
        return F.linear(self.dropout(torch.tanh(self.narrow(feature))), weight, self.bias)

    def loss(self, raw: Float[Tensor, "n vocabulary"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        return F.cross_entropy(raw.float(), y, reduction="none", label_smoothing=self.spec.smoothing)

    def point(self, raw: Float[Tensor, "*batch vocabulary"]) -> Int[Tensor, "*batch"]:
        """The likeliest token."""
        return raw.argmax(-1)

    def sample(
        self,
        raw: Float[Tensor, "*batch vocabulary"],
        generator: torch.Generator | None = None,
        sampling: Sampling = PLAIN,
    ) -> Int[Tensor, "*batch"]:
        """A token drawn from what it thinks likely."""
        return sampling.draw(raw.flatten(0, -2), generator).view(raw.shape[:-1])


class EncoderDecoder(SequenceModel):
    """Source encoder, decoder and read-out, with the vocabularies of what is read and said; and searches.

    Inputs are the true tokens, the begin mark first (teacher forcing), targets the tokens after them. The state holds
    the source; a batch that brings sources begins anew with them, and hands no state on.
    """

    no_step = "it reads a whole source before it says anything"
    aligned = False
    encoder: SourceEncoder
    vocabularies: Mapping[str, Vocabulary]
    """Vocabularies by name: of each source that is a text, and of `target`."""
    passes: Tensor
    """Batches trained on, for the ramp of the sampled tokens."""

    def __init__(self, encoder: SourceEncoder, decoder: TokenDecoder, head: "ReadoutHead"):
        super().__init__()
        self.encoder, self.decoder, self.head, self.vocabularies = encoder, decoder, head, {}
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    @property
    def device(self) -> torch.device:
        return self.passes.device

    def initial(self, batch: int = 1) -> State:
        """The state before a source is read."""
        return self.decoder.initial(batch)

    def read(self, sources: Sources) -> State:
        """The state after reading sources, before the first token."""
        return self.decoder.begin(self.encoder(sources))

    def forward(self, batch: Batch, state: State) -> tuple[Float[Tensor, "batch time vocabulary"], State]:
        """Logits of the tokens after `batch.x`, about the batch's sources; or about those that the state holds."""
        x = batch.x
        if not batch.sources:
            return self.run(x, state)
        begun = self.read(batch.sources)
        if self.training and self.decoder.spec.scheduled_sampling:
            x = self._mixed(x, begun)
            self.passes += 1
        return self.run(x, begun)[0], self.initial(len(x))

    def run(self, x: Int[Tensor, "batch time"], state: State) -> tuple[Float[Tensor, "batch time vocabulary"], State]:
        """Logits of the tokens after `x`, about the sources that the state holds."""
        feature, state = self.decoder(x, state)
        return self.head(feature, self.decoder.embedding.weight), state

    def step(self, token: Int[Tensor, "row"], state: State) -> tuple[Float[Tensor, "row vocabulary"], State]:
        """One token, for the searches of `decoding`."""
        logits, state = self.run(token.unsqueeze(1), state)
        return logits[:, 0], state

    def loss(self, batch: Batch, raw: Float[Tensor, "batch time vocabulary"]) -> tuple[Tensor, Tensor]:
        """Sum of the weighted losses and sum of the weights."""
        there = batch.mask > 0
        weight = batch.mask[there]
        return (self.head.loss(raw[there], batch.y[there]) * weight).sum(), weight.sum()

    @torch.no_grad()
    def held_out_loss(self, examples: Sequence[Pair]) -> float:
        """Mean loss a token over whole pairs."""
        training, total, count = self.training, 0.0, 0.0
        self.eval()
        for start in range(0, len(examples), 32):
            batch = batch_of(examples[start : start + 32]).to(self.device)
            loss, weight = self.loss(batch, self(batch, self.initial(len(batch.x)))[0])
            total, count = total + float(loss), count + float(weight)
        self.train(training)
        return total / max(count, 1.0)

    @torch.no_grad()
    def _mixed(self, x: Tensor, state: State) -> Tensor:
        """The true tokens, some exchanged for what the model draws after those before them.

        No gradient goes through what is drawn, so the pass that learns can take all steps at once.
        """
        spec = self.decoder.spec
        share = spec.scheduled_sampling * min(1.0, self.passes.item() / max(1, spec.sampling_ramp))
        shown = [x[:, 0]]
        for t in range(1, x.shape[1]):
            logits, state = self.step(shown[-1], state)
            own = torch.rand(len(x), device=x.device) < share
            shown.append(torch.where(own & (x[:, t] != PAD), Sampling().draw(logits), x[:, t]))
        return torch.stack(shown, 1)

    @torch.no_grad()
    def say(
        self, sources: Sources, max_length: int | Tensor, beam_width: int = 1, length_penalty: float = 1.0
    ) -> list[list[Hypothesis]]:
        """What is said about each row of the sources, best first: one greedily, or as many as the beam is wide."""
        training = self.training
        self.eval()
        try:
            # The memory is apart, one row a source, while the rows of a beam change places.
            memory, *state = self.read(sources)
            rows = len(memory[0])

            def step(token: Tensor, state: State, memory: State) -> tuple[Tensor, State]:
                logits, (_, *after) = self.step(token, (memory, *state))
                return logits, tuple(after)

            if beam_width == 1:
                return [[best] for best in greedy(step, tuple(state), rows, max_length, memory)]
            return beam(step, tuple(state), rows, max_length, beam_width, length_penalty, memory)
        finally:
            self.train(training)


def build(
    encoder: SourceEncoderSpec, decoder: Decoder, head: Readout, shapes: Mapping[str, tuple[int, ...]], target: int
) -> EncoderDecoder:
    """The model of three specs, for sources of these shapes and a vocabulary of `target` pieces."""
    reads = encoder.build(shapes)
    says = decoder.build(target, reads)
    return EncoderDecoder(reads, says, head.over(says.size, says.embedding))


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


def _embedding(vocabulary: int, width: int, start: float = 0.1) -> nn.Embedding:
    """Small numbers, so that tied logits begin small."""
    table = nn.Embedding(vocabulary, width, padding_idx=PAD)
    nn.init.uniform_(table.weight, -start, start)
    with torch.no_grad():
        table.weight[PAD] = 0
    return table
