"""What turns one raw step into a feature.

An encoder has the contract of a core, `(x, state) -> (y, state)`, for some look at a few steps at once.
Its `prepare` is the part without weights: it is done once per recording and kept, and again live."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal, TypeGuard

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Spec
from ..data.examples import ELAPSED
from ..data.inputs import Inputs
from ..data.records import as_numbers
from ..data.symbols import Symbols
from ..errors import UserError
from . import kernels
from .cores import State
from .forms import NoForm, native_form, row_form


class Encoder(nn.Module):
    """What every encoder offers, beside the contract of a core."""

    size: int
    """Features of a step."""
    raw: Any
    """Shape of one raw step; of several inputs, by name."""
    inputs: tuple[str, ...] = ()
    """Names of its inputs, where there are several."""
    sound_hz: int = 0
    """Samples a second, where a step is a stretch of sound."""
    mean: Tensor
    deviation: Tensor

    @property
    def symbols(self) -> Symbols | None:
        """The symbols of a text, where it reads one."""
        return None

    def prepare(self, raw: Tensor) -> Tensor:
        """Raw steps (any number first) to what is kept and fed to `forward`."""
        return raw

    def looks_at(self, state: State) -> Float[Tensor, "height width"] | None:
        """How much it sees of each pixel, from 0 to 1, of what stands first in a batch; None: of all as much."""
        return None

    def prepare_named(self, name: str, raw: Tensor) -> Tensor:
        """Raw steps of the input of that name, where there are several, as `prepare` does for a single one."""
        raise NotImplementedError(f"{type(self).__name__} has no inputs by name")

    def checked(self, frame: object) -> Any:
        """One raw step as an array. UserError where it is not of the shape and type that the encoder takes."""
        step = np.ascontiguousarray(frame if len(self.raw) == 3 else as_numbers(frame, "a step of this model"))
        if step.shape != self.raw or (step.ndim == 3 and step.dtype != np.uint8):
            kind = " uint8" if len(self.raw) == 3 else ""
            raise UserError(
                f"this model takes steps of shape {self.raw}{kind}, "
                f"not {step.shape} {step.dtype}; give it what it was trained on"
            )
        return step

    def prepare_step(self, frame: object, device: torch.device) -> Tensor | Inputs:
        """One raw step as a batch of one prepared step (1 1 ...)."""
        return self.prepare(_tensor(self.checked(frame)).unsqueeze(0).to(device)).unsqueeze(1)

    def fit(self, x: Any) -> None:
        """Takes the normaliser from training inputs (steps first)."""
        flat = torch.as_tensor(x.reshape(-1, x.shape[-1])).double()
        self.mean.copy_(flat.mean(0))
        deviation = flat.std(0, correction=0)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))  # A constant becomes 0.

    def normal(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def initial(self, batch: int) -> State:
        return ()

    def pretrained(self) -> list[nn.Parameter]:
        """Parameters that do not begin at random."""
        return []


class EncoderSpec(Spec):
    """Spec of an encoder."""

    timed: ClassVar[bool] = False
    """Whether the last number of each prepared step is to be the seconds since the step before."""
    gaps: ClassVar[bool] = False
    """Whether NaN says that something was not measured; else it is refused."""

    def build(self, raw: Any) -> Encoder:
        """The encoder of raw steps of this shape; of several inputs, by name."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")

    def named(self, stream: str) -> "Joined | None":
        """The encoder of inputs by name, where it needs more than this one stream; None: it reads that alone."""
        return Joined((Part(stream, self),)) if self.timed else None


@dataclass(frozen=True)
class Identity(EncoderSpec):
    """The numbers themselves, brought to mean 0 and deviation 1."""

    def build(self, raw: tuple[int, ...]) -> "IdentityEncoder":
        return IdentityEncoder(raw)


class IdentityEncoder(Encoder):
    def __init__(self, raw: tuple[int, ...]):
        super().__init__()
        self.raw = raw
        self.size = raw[-1]
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))

    def forward(
        self, x: Float[Tensor, "batch time feature"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        return self.normal(x), state


@dataclass(frozen=True)
class Elapsed(EncoderSpec):
    """The time since the step before (the input `elapsed_s`): 1 is the mean of the training data."""

    def build(self, raw: tuple[int, ...]) -> "ElapsedEncoder":
        if raw != (1,):
            raise UserError(f"Elapsed takes a number of seconds a step, found steps of shape {raw}")
        return ElapsedEncoder(raw)


class ElapsedEncoder(IdentityEncoder):
    def fit(self, x: np.ndarray) -> None:
        """Takes the mean of the steps that have one before them."""
        steps = np.asarray(x, np.float64)
        self.deviation.fill_(float(steps[steps > 0].mean()) if (steps > 0).any() else 1.0)


RowStep = Callable[[Float[np.ndarray, "number"], float, Float[np.ndarray, "feature"]], None]
"""One row of numbers and the seconds since the one before, to its features, which are written in place."""


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().float().cpu().numpy().copy() for tensor in tensors]


@native_form(IdentityEncoder)
def _identity_layer(encoder: IdentityEncoder) -> object:
    if len(encoder.raw) != 1:
        raise NoForm(f"steps of shape {encoder.raw} can't be compiled")
    return kernels.native.standard_layer(*_arrays(encoder.mean, encoder.deviation))


@row_form(IdentityEncoder, ElapsedEncoder)
def _identity_row(encoder: IdentityEncoder) -> RowStep:
    mean, deviation = _arrays(encoder.mean, encoder.deviation)

    def step(row: np.ndarray, elapsed_s: float, out: np.ndarray) -> None:
        np.divide(row - mean, deviation, out=out)

    return step


@dataclass(frozen=True)
class Embedding(EncoderSpec):
    """A vector for each character, learned."""

    symbols: str = ""
    """Characters that are known; none: the 256 bytes."""
    features: int = 64
    """Features of each vector."""
    dropout: float = 0.1
    """Share of its numbers dropped while training."""

    BOUNDS = {"features": (1, inf), "dropout": (0, 1)}

    def build(self, raw: tuple[int, ...]) -> "EmbeddingEncoder":
        if raw != (1,):
            raise UserError(f"Embedding needs a text, a number a step; found steps of shape {raw}")
        return EmbeddingEncoder(self, raw)


class EmbeddingEncoder(Encoder):
    def __init__(self, spec: Embedding, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.size, self._symbols = raw, spec.features, Symbols(spec.symbols)
        self.vectors = nn.Embedding(len(self.symbols), spec.features)
        self.dropout = nn.Dropout(spec.dropout)

    @property
    def symbols(self) -> Symbols:
        return self._symbols

    def prepare(self, raw: Int[Tensor, "n 1"]) -> Int[Tensor, "n 1"]:
        """Classes of code points, or of bytes."""
        return torch.from_numpy(self.symbols.classes(raw.cpu().numpy()).astype(np.int32)).to(raw.device)

    def fit(self, x: np.ndarray) -> None:
        """Nothing to fit: there is no normaliser."""

    def forward(
        self, x: Int[Tensor, "batch time 1"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        return self.dropout(self.vectors(x[..., 0].long())), state


@dataclass(frozen=True)
class Observed(EncoderSpec):
    """Numbers of which some are missing (NaN): each as it was last measured, whether it was measured now, how long ago.

    What recurrent networks for medical records are fed (Che et al. 2018, GRU-D).
    """

    fill: Literal["decay", "last", "mean"] = "decay"
    """What stands for a number that was not measured: the mean of the training data; the last one that was; or this,
    going to the mean with time, at a rate that is learned for each (as in GRU-D, but for a soft max(0, .))."""

    timed: ClassVar[bool] = True
    gaps: ClassVar[bool] = True

    def build(self, raw: tuple[int, ...]) -> "ObservedEncoder":
        if len(raw) != 1:
            raise UserError(f"Observed takes a row of numbers a step, found steps of shape {raw}")
        return ObservedEncoder(self, raw)


class ObservedEncoder(Encoder):
    """State: each number as last measured, standardised, and the seconds since; if never, since the first step."""

    period_s: Tensor
    """Mean seconds from step to step."""
    START = -2.0
    """First value of the rates: a mean step takes about an eighth of a filled number away."""

    def __init__(self, spec: Observed, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.fill, num = raw, spec.fill, raw[0]
        self.size = 3 * num
        self.rate = nn.Parameter(torch.full((num,), self.START)) if spec.fill == "decay" else None
        self.register_buffer("mean", torch.zeros(num))
        self.register_buffer("deviation", torch.ones(num))
        self.register_buffer("period_s", torch.ones(()))

    def fit(self, x: np.ndarray) -> None:
        """Takes mean and deviation of what was measured, and the mean period."""
        for column, numbers in enumerate(x[:, :-1].T.astype(np.float64)):
            known = numbers[~np.isnan(numbers)]
            if len(known):
                self.mean[column] = known.mean()
                self.deviation[column] = known.std() or 1.0
        self.period_s.fill_(float(x[:, -1].mean(dtype=np.float64)) or 1.0)

    def initial(self, batch: int) -> State:
        zeros = self.mean.new_zeros(batch, len(self.mean))
        return (zeros, zeros.clone())

    def forward(
        self, x: Float[Tensor, "batch time number_and_elapsed"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        values, elapsed = x[..., :-1], x[..., -1:]
        known = ~values.isnan()
        normal = torch.where(known, self.normal(values.nan_to_num()), 0.0)
        last, ago = state
        # Time counts from the step before the first, in double precision: a long chunk must not differ from short ones.
        now = elapsed.double().cumsum(1).expand(normal.shape)
        steps = torch.arange(1, x.shape[1] + 1, device=x.device).view(1, -1, 1)
        place = torch.where(known, steps, 0).cummax(1).values  # 0: before this chunk.
        held = torch.cat((last.unsqueeze(1), normal), 1).gather(1, place)
        since = (now - torch.cat((-ago.double().unsqueeze(1), now), 1).gather(1, place)).to(normal.dtype)
        age = since / self.period_s
        if self.rate is not None:
            shown = torch.where(known, normal, held * torch.exp(-F.softplus(self.rate) * age))
        else:
            shown = held if self.fill == "last" else normal
        return torch.cat((shown, known.to(normal.dtype), torch.log1p(age)), -1), (held[:, -1], since[:, -1])


@row_form(ObservedEncoder)
def _observed_row(encoder: ObservedEncoder) -> RowStep:
    mean, deviation = _arrays(encoder.mean, encoder.deviation)
    period_s, num = float(encoder.period_s), len(mean)
    rate = None if encoder.rate is None else _arrays(F.softplus(encoder.rate))[0]
    last, ago = np.zeros(num, np.float32), np.zeros(num)

    def step(row: np.ndarray, elapsed_s: float, out: np.ndarray) -> None:
        normal = (row - mean) / deviation
        if (total := normal.dot(normal)) == total:  # None is NaN.
            last[:], ago[:] = normal, 0.0
            out[:num], out[num : 2 * num], out[2 * num :] = normal, 1.0, 0.0
            return
        known = row == row
        np.copyto(last, normal, where=known)
        ago[:] = np.where(known, 0.0, ago + elapsed_s)
        age = (ago / period_s).astype(np.float32)
        if rate is not None:
            out[:num] = np.where(known, normal, last * np.exp(-rate * age))
        else:
            out[:num] = last if encoder.fill == "last" else np.where(known, normal, 0.0)
        out[num : 2 * num], out[2 * num :] = known, np.log1p(age)

    return step


@dataclass(frozen=True)
class Part(Spec):
    """One of several streams, and the encoder that reads it."""

    stream: str
    encoder: EncoderSpec = Identity()
    once: bool = False
    """Whether it is given once a record (an age, a picture): encoded once, and seen at every step."""


@dataclass(frozen=True)
class Joined(EncoderSpec):
    """Several streams, each with an encoder of its own; their features side by side."""

    parts: tuple[Part, ...] = ()
    """Parts, one a stream. `elapsed_s` is one that every record has: the seconds since the step before."""

    def build(self, raw: Mapping[str, tuple[int, ...]]) -> "JoinedEncoder":
        return JoinedEncoder(self, {name: raw[name] for name in self.streams})

    def named(self, stream: str) -> "Joined":
        """Itself; UserError where that stream, whose clock counts, is not among its parts, or one is read twice."""
        names = [part.stream for part in self.parts]
        twice = [name for name in names if names.count(name) > 1]
        if twice or not self.parts:
            what = f"{twice[0]!r} is read twice" if twice else "parts is empty"
            raise UserError(f"Joined: {what}; give it one part for each stream")
        if stream not in [part.stream for part in self.parts if not part.once]:
            raise UserError(
                f"Joined reads {', '.join(names)}; set `inputs` to the one of them on whose clock the others are read, "
                f"not to {stream!r}"
            )
        return self

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of what it reads."""
        names = tuple(part.stream for part in self.parts)
        timed = any(part.encoder.timed and not part.once for part in self.parts)
        return (*names, ELAPSED) if timed and ELAPSED not in names else names


class JoinedEncoder(Encoder):
    """State: that of each part."""

    def __init__(self, spec: Joined, raw: Mapping[str, tuple[int, ...]]):
        super().__init__()
        self.spec, self.raw, self.inputs = spec, dict(raw), tuple(raw)
        encoders = [part.encoder.build(raw[part.stream]) for part in spec.parts]
        self.encoders = nn.ModuleList(encoders)
        self.size = sum(encoder.size for encoder in encoders)

    @property
    def parts(self) -> Sequence[tuple[Part, Encoder]]:
        return list(zip(self.spec.parts, self.encoders, strict=True))  # pyright: ignore[reportReturnType]

    def prepare_named(self, name: str, raw: Tensor) -> Tensor:
        """Raw steps of one stream as they are kept and fed to `forward`."""
        found = next((encoder for part, encoder in self.parts if part.stream == name), None)
        prepared = raw if found is None else found.prepare(raw)
        return prepared.float() if prepared.is_floating_point() else prepared

    def checked(self, frame: object) -> dict[str, np.ndarray]:
        """Raw values by name, each of its shape; a plain number will do for one."""
        if not isinstance(frame, Mapping) or set(frame) != set(self.raw):
            found = ", ".join(frame) if isinstance(frame, Mapping) else type(frame).__name__
            raise UserError(f"this model takes a dict of {', '.join(self.raw)} a step, not of {found}")
        read = {part.stream: encoder for part, encoder in self.parts}
        given = {name: np.atleast_1d(np.asarray(value)) for name, value in frame.items()}
        for name, value in given.items():
            if name in read:
                given[name] = read[name].checked(value)
            elif value.shape != self.raw[name]:
                raise UserError(f"{name}: this model takes shape {self.raw[name]}, not {value.shape}")
            else:
                given[name] = as_numbers(value, name)
        return given

    def prepare_step(self, frame: object, device: torch.device) -> Inputs:
        once = {part.stream for part, _ in self.parts if part.once}
        found = {
            name: self.prepare_named(name, _tensor(value).unsqueeze(0).to(device))
            for name, value in self.checked(frame).items()
        }
        streams = {name: found[name].unsqueeze(1) for name in self.raw if name not in once}
        return Inputs(streams, {name: found[name] for name in once})

    def fit(self, x: Inputs) -> None:
        for part, encoder in self.parts:
            values = (x.once if part.once else x.streams)[part.stream]
            if part.encoder.timed:
                elapsed = np.zeros((len(values), 1), np.float32) if part.once else x.streams[ELAPSED]
                values = np.concatenate((values, elapsed), 1)
            encoder.fit(values)

    def initial(self, batch: int) -> State:
        return tuple(() if part.once else encoder.initial(batch) for part, encoder in self.parts)

    def forward(self, x: Inputs, state: State) -> tuple[Float[Tensor, "batch time feature"], State]:
        (rows, time), features, after = x.shape, [], []
        for (part, encoder), before in zip(self.parts, state, strict=True):
            given = x.once[part.stream].unsqueeze(1) if part.once else x.streams[part.stream]
            if part.encoder.timed:
                elapsed = torch.zeros_like(given[..., :1]) if part.once else x.streams[ELAPSED]
                given = torch.cat((given, elapsed), -1)
            feature, now = encoder(given, encoder.initial(rows) if part.once else before)
            features.append(feature.expand(-1, time, -1))
            after.append(() if part.once else now)
        return torch.cat(features, -1), tuple(after)

    def pretrained(self) -> list[nn.Parameter]:
        return [parameter for _, encoder in self.parts for parameter in encoder.pretrained()]


@row_form(JoinedEncoder)
def _joined_row(encoder: JoinedEncoder) -> Callable[[Mapping[str, np.ndarray], float, np.ndarray], None]:
    """Takes a row by its streams; what is given once counts as in the first."""
    steps, begin = [], 0
    for part, one in encoder.parts:
        place = slice(begin, begin := begin + one.size)
        steps.append((part.stream, part.once, place, row_form.of(one)(one)))
    begun = False

    def step(row: Mapping[str, np.ndarray], elapsed_s: float, out: np.ndarray) -> None:
        nonlocal begun
        for stream, once, place, one in steps:
            if not (once and begun):
                one(row[stream], 0.0 if once else elapsed_s, out[place])
        begun = True

    return step


def prepare_batch(encoder: Encoder, raw: np.ndarray) -> np.ndarray:
    """`encoder.prepare` for NumPy."""
    with torch.inference_mode():
        return encoder.prepare(_tensor(raw)).numpy()


def prepare_named(encoder: Encoder, name: str, raw: np.ndarray) -> np.ndarray:
    """`encoder.prepare_named` for NumPy."""
    with torch.inference_mode():
        return encoder.prepare_named(name, _tensor(raw)).numpy()


def _tensor(raw: np.ndarray) -> Tensor:
    """The same numbers; a copy of what torch does not take: what may not be written, or is read backwards."""
    return torch.from_numpy(raw if raw.flags.writeable and min(raw.strides, default=0) >= 0 else raw.copy())


def reads_symbols(encoder: Encoder) -> TypeGuard[EmbeddingEncoder]:
    """Whether an encoder reads the symbols of a text."""
    return isinstance(encoder, EmbeddingEncoder)


def joined_parts(encoder: Encoder) -> Sequence[tuple[Part, Encoder]]:
    """The parts of an encoder of several inputs, each with what reads it; of another none."""
    return encoder.parts if isinstance(encoder, JoinedEncoder) else []
