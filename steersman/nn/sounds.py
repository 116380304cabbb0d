"""Encoders of sound: a step is a stretch of samples, from -1 to 1."""

from dataclasses import dataclass
from math import inf, log10

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from .cores import State
from .encoders import Encoder, EncoderSpec
from .forms import Graph, onnx_form

LEVELS = 256
"""Values of a sample in mu-law."""


@dataclass(frozen=True)
class SoundSpec(EncoderSpec):
    """Spec of an encoder of sound; with the length of a step its samples say their rate."""

    step_ms: float = 16.0
    """Milliseconds of sound in a step."""

    BOUNDS = {"step_ms": (0.1, inf)}

    def samples(self, rate_hz: int) -> int:
        """Samples in a step. UserError where that is no whole number."""
        number = rate_hz * self.step_ms / 1000
        if number < 1 or abs(number - round(number)) > 1e-6:
            raise UserError(
                f"{self.step_ms:g} ms at {rate_hz} Hz are {number:g} samples; choose --encoder.step-ms, or the rate, "
                "so that a step is a whole number of samples"
            )
        return round(number)


@dataclass(frozen=True)
class Spectrogram(SoundSpec):
    """Energies in bands of the mel scale, their logarithm, less what they were on average in this recording so far.

    Of each step the window of samples that ends with it: Hann's, power spectrum, triangles as wide as their distance
    on the scale 2595 log10(1 + f / 700) (Davis & Mermelstein 1980). The mean of the recording begins as that of the
    training data, so nothing of the future is needed; it takes away what a microphone and a room add.
    """

    window_ms: float = 32.0
    """Milliseconds of sound that a spectrum is taken of."""
    bands: int = 24
    """Bands of the mel scale."""
    low_hz: float = 100.0
    """Frequency at which the lowest band begins."""
    high_hz: float = 0.0
    """Frequency at which the highest band ends; 0: half the rate."""
    floor: float = 1e-7
    """Energy that is added to each band before the logarithm, a sine at full scale being 0.25."""
    settle_s: float = 0.1
    """Seconds after which a recording's own mean counts as much as that of the training data."""
    warp: float = 0.0
    """Largest share by which frequencies are stretched or squeezed in training, as longer and shorter vocal tracts do
    (Jaitly & Hinton 2013)."""
    masks: int = 0
    """Stretches of bands, and as many of steps, that are hidden in training (Park et al. 2019)."""
    mask_bands: int = 4
    """Bands that such a stretch hides at most."""
    mask_steps: int = 5
    """Steps that such a stretch hides at most."""
    channels: tuple[int, ...] = ()
    """Features of convolutions over neighbouring bands and the last three steps, each of which halves the bands; none:
    the energies themselves. They are the same at all frequencies, as voices differ in where theirs lie (Abdel-Hamid et
    al. 2014)."""

    BOUNDS = {
        **SoundSpec.BOUNDS,
        "bands": (1, inf),
        "low_hz": (0, inf),
        "high_hz": (0, inf),
        "floor": (1e-30, inf),
        "settle_s": (0, inf),
        "warp": (0, 0.9),
        **dict.fromkeys(("masks", "mask_bands", "mask_steps"), (0, inf)),
        "channels": (1, inf),
    }

    def build(self, raw: tuple[int, ...]) -> "SpectrogramEncoder":
        if len(raw) != 1:
            raise UserError(f"Spectrogram takes a stretch of samples a step, found steps of shape {raw}")
        return SpectrogramEncoder(self, raw)


class SpectrogramEncoder(Encoder):
    """State: the samples before, the mean of the recording so far, the steps that it is of, and what each convolution
    saw in the last two."""

    window: Tensor
    filters: Tensor
    STEPS, WIDTHS = 3, (5, 3)
    """Steps that a convolution sees, and bands: the first, and the others."""

    def __init__(self, spec: Spectrogram, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.spec, self.size = raw, spec, spec.bands
        self.convolutions, self.shapes, kinds = nn.ModuleList(), [], 1
        """Convolutions, and what each sees of a step (channel band)."""
        for number, channels in enumerate(spec.channels):
            self.shapes.append((kinds, self.size // kinds))
            wide = self.WIDTHS[number > 0]
            self.convolutions.append(nn.Conv2d(kinds, channels, (self.STEPS, wide), (1, 2), (0, wide // 2)))
            self.size, kinds = channels * -(-self.shapes[-1][1] // 2), channels
        self.even = nn.LayerNorm(self.size) if spec.channels else nn.Identity()
        rate_hz = raw[0] * 1000 / spec.step_ms
        self.sound_hz = round(rate_hz)
        length = max(round(rate_hz * spec.window_ms / 1000), raw[0])
        window = np.hanning(length + 1)[:-1]
        self.register_buffer("window", torch.from_numpy(window / window.sum()).float())
        self.hz = (spec.low_hz, spec.high_hz or rate_hz / 2)
        """Where its lowest band begins and its highest ends."""
        self.settle = spec.settle_s * 1000 / spec.step_ms
        """Steps that the training data's mean counts for."""
        filters = mel_filters(length, rate_hz, spec.bands, *self.hz)
        self.register_buffer("filters", torch.from_numpy(filters).float())
        self.register_buffer("mean", torch.zeros(spec.bands))
        self.register_buffer("deviation", torch.ones(spec.bands))

    def fit(self, x: np.ndarray) -> None:
        """Takes mean and deviation of training steps, which follow each other."""
        training = self.training
        self.eval()
        with torch.no_grad():
            bands, _ = self.log_energies(torch.from_numpy(x).float().unsqueeze(0), self.initial(1)[0])
        self.train(training)
        super().fit(bands[0])

    def initial(self, batch: int) -> State:
        before = self.mean.new_zeros(batch, len(self.window) - self.raw[0])
        seen = (self.mean.new_zeros(batch, kinds, self.STEPS - 1, bands) for kinds, bands in self.shapes)
        return (before, self.mean.expand(batch, -1), self.mean.new_zeros(batch, 1), *seen)

    def forward(
        self, x: Float[Tensor, "batch time sample"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        before, mean, count, *seen = state
        bands, before = self.log_energies(x.float(), before)
        # In double precision: a long chunk must not differ from short ones.
        weight = count.double() + self.settle
        total = (mean.double() * weight).unsqueeze(1) + bands.double().cumsum(1)
        steps = torch.arange(1, bands.shape[1] + 1, device=x.device).view(1, -1, 1)
        means = (total / (weight.unsqueeze(1) + steps)).to(bands.dtype)
        feature = (bands - means) / self.deviation
        feature, seen = self._convolved(self._masked(feature) if self.training else feature, seen)
        return feature, (before, means[:, -1], count + bands.shape[1], *seen)

    def _convolved(
        self, feature: Float[Tensor, "batch time band"], seen: list[Tensor]
    ) -> tuple[Float[Tensor, "batch time feature"], list[Tensor]]:
        """What the convolutions make of it, and the last steps that each saw."""
        if not seen:
            return feature, seen
        x, after = feature.unsqueeze(1), []
        for convolution, before in zip(self.convolutions, seen, strict=True):
            line = torch.cat((before.to(x.dtype), x), 2)
            after.append(line[:, :, 1 - self.STEPS :])
            x = F.relu(convolution(line))
        return self.even(x.transpose(1, 2).flatten(2)), after

    def log_energies(
        self, x: Float[Tensor, "batch time sample"], before: Float[Tensor, "batch sample"]
    ) -> tuple[Float[Tensor, "batch time band"], Float[Tensor, "batch sample"]]:
        """Logarithms of the energies in all bands, and the samples that the next step's window begins with."""
        sound = torch.cat((before, x.flatten(1)), 1)
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft(sound.unfold(1, len(self.window), x.shape[2]) * self.window)
            power = spectrum.real.square() + spectrum.imag.square()
            filters = self._warped(len(x)) if self.training and self.spec.warp else self.filters
            return torch.log(power @ filters + self.spec.floor), sound[:, x.shape[1] * x.shape[2] :]

    def _warped(self, rows: int) -> Float[Tensor, "batch frequency band"]:
        """Bands of each row that lie so many times higher or lower."""
        last = len(self.filters) - 1
        times = 1 + self.spec.warp * (2 * torch.rand(rows, 1, device=self.filters.device) - 1)
        place = (times * torch.arange(last + 1, device=times.device)).clamp_max(last)
        low = place.floor().clamp_max(last - 1)
        share = (place - low).unsqueeze(2)
        return self.filters[low.long()] * (1 - share) + self.filters[low.long() + 1] * share

    def _masked(self, feature: Float[Tensor, "batch time band"]) -> Float[Tensor, "batch time band"]:
        """The same with some stretches of bands and of steps at their mean, 0."""
        rows, steps, bands = feature.shape
        for _ in range(self.spec.masks):
            for length, most, shape in ((bands, self.spec.mask_bands, (1, -1)), (steps, self.spec.mask_steps, (-1, 1))):
                wide, begin = (torch.rand(rows, 1, device=feature.device) for _ in range(2))
                wide = (wide * (min(most, length) + 1)).floor()
                begin = (begin * (length - wide + 1)).floor()
                place = torch.arange(length, device=feature.device)
                hidden = (place >= begin) & (place < begin + wide)
                feature = feature.masked_fill(hidden.view(rows, *shape), 0.0)
        return feature


@onnx_form(SpectrogramEncoder)
def _spectrogram(graph: Graph, encoder: SpectrogramEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    """The Fourier transform as two products, with the window in their weights."""
    before, mean, count, *seen = state
    length, step = len(encoder.window), encoder.raw[0]
    turns = torch.outer(torch.arange(length), torch.arange(length // 2 + 1)).double() * (2 * np.pi / length)
    sound = graph.op("Concat", before, raw, axis=1)
    parts = [
        graph.op("MatMul", sound, encoder.window.view(-1, 1) * wave.float()) for wave in (turns.cos(), turns.sin())
    ]
    power = graph.total(*(graph.op("Mul", part, part) for part in parts))
    bands = graph.op("Log", graph.op("Add", graph.op("MatMul", power, encoder.filters), np.float32(encoder.spec.floor)))
    weight = graph.op("Add", count, np.float32(encoder.settle))
    total = graph.total(graph.op("Mul", mean, weight), bands)
    mean = graph.op("Div", total, graph.op("Add", weight, np.float32(1)))
    kept = graph.op("Slice", sound, np.array([step]), np.array([length]), np.array([1]))
    feature = graph.op("Div", graph.op("Sub", bands, mean), encoder.deviation)
    after = [kept, mean, graph.op("Add", count, np.float32(1))]
    if not seen:
        return feature, tuple(after)
    x = graph.op("Unsqueeze", feature, np.array([1, 2]))
    for convolution, last in zip(encoder.convolutions, seen, strict=True):
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        line = graph.op("Concat", last, x, axis=2)
        after.append(graph.op("Slice", line, np.array([1]), np.array([encoder.STEPS]), np.array([2])))
        wide = convolution.kernel_size[1] // 2
        pads, strides = [0, wide, 0, wide], list(convolution.stride)
        x = graph.op("Relu", graph.op("Conv", line, convolution.weight, convolution.bias, strides=strides, pads=pads))
    flat = graph.op("Flatten", x, axis=1)
    even = encoder.even
    assert isinstance(even, nn.LayerNorm)
    gain, shift = even.weight, even.bias
    return graph.op("LayerNormalization", flat, gain, shift, axis=-1, epsilon=even.eps), tuple(after)


def mel_filters(length: int, rate_hz: float, bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Weights (frequency band) of triangles that stand evenly on the mel scale, over the spectrum of `length` samples.

    UserError where a band holds no frequency of the spectrum, or where they leave it.
    """
    if not low_hz < high_hz <= rate_hz / 2:
        raise UserError(
            f"bands from {low_hz:g} to {high_hz:g} Hz don't lie in a sound of {rate_hz:g} Hz, which holds frequencies "
            f"up to {rate_hz / 2:g}; set --encoder.low-hz and --encoder.high-hz"
        )
    low, high = (2595 * log10(1 + hz / 700) for hz in (low_hz, high_hz))
    corners = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    hz = np.arange(length // 2 + 1)[:, None] * rate_hz / length
    rise, fall = (hz - corners[:-2]) / np.diff(corners)[:-1], (corners[2:] - hz) / np.diff(corners)[1:]
    found = np.clip(np.minimum(rise, fall), 0, None)
    if empty := int((found.sum(0) == 0).sum()):
        raise UserError(
            f"{empty} of {bands} bands are narrower than what a window of {1000 * length / rate_hz:g} ms tells apart; "
            "lower --encoder.bands or raise --encoder.window-ms"
        )
    return found


@dataclass(frozen=True)
class MuLaw(SoundSpec):
    """Samples themselves in 256 levels that lie denser about zero (mu-law of ITU-T G.711, as in WaveNet, van den Oord
    et al. 2016), brought to mean 0 and deviation 1."""

    def build(self, raw: tuple[int, ...]) -> "MuLawEncoder":
        if len(raw) != 1:
            raise UserError(f"MuLaw takes a stretch of samples a step, found steps of shape {raw}")
        return MuLawEncoder(self, raw)


class MuLawEncoder(Encoder):
    def __init__(self, spec: MuLaw, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.size, self.sound_hz = raw, raw[0], round(raw[0] * 1000 / spec.step_ms)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("deviation", torch.ones(1))

    def fit(self, x: np.ndarray) -> None:
        super().fit(self.levels(torch.from_numpy(x)).reshape(-1, 1))

    def levels(self, x: Tensor) -> Tensor:
        """Levels of samples, from -1 to 1."""
        return mu_law(x).float() * (2 / (LEVELS - 1)) - 1

    def forward(
        self, x: Float[Tensor, "batch time sample"], state: State
    ) -> tuple[Float[Tensor, "batch time sample"], State]:
        return self.normal(self.levels(x)), state


def mu_law(x: Tensor) -> Tensor:
    """Levels from 0 to 255 of samples from -1 to 1: sign(x) ln(1 + 255 |x|) / ln 256, in 256 even steps."""
    most = LEVELS - 1
    curve = x.sign() * torch.log1p(most * x.abs().clamp_max(1)) / np.log(LEVELS)
    return ((curve + 1) / 2 * most).round().to(torch.uint8)


def from_mu_law(levels: Tensor) -> Float[Tensor, "..."]:
    """Samples from -1 to 1 of levels from 0 to 255."""
    most = LEVELS - 1
    curve = levels.float() * (2 / most) - 1
    return curve.sign() * torch.expm1(curve.abs() * np.log(LEVELS)) / most
