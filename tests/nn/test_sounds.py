"""Encoders of sound beside their formulas, and a chunk at a time beside the whole."""

import numpy as np
import pytest
import torch

from steersman.errors import UserError
from steersman.nn.sounds import MuLaw, Spectrogram, from_mu_law, mel_filters, mu_law

RATE, STEP = 8_000, 80


def sound(seconds: float = 0.4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def steps(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.reshape(1, -1, STEP))


def log_mel(x: np.ndarray, spec: Spectrogram) -> np.ndarray:
    """The same by hand: a discrete Fourier transform as sums, triangles by interpolation, a frame at a time."""
    length, high = round(RATE * spec.window_ms / 1000), spec.high_hz or RATE / 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    mel = np.linspace(*(1127 * np.log(1 + np.array([spec.low_hz, high]) / 700)), spec.bands + 2)
    corners = 700 * (np.exp(mel / 1127) - 1)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(length)) / length)
    hz = np.arange(length // 2 + 1) * RATE / length
    before, rows = np.concatenate((np.zeros(length - STEP), x)), []
    for end in range(length, len(before) + 1, STEP):
        power = np.abs(wave @ (before[end - length : end] * window / window.sum())) ** 2
        bands = [np.interp(hz, corners[b : b + 3], [0, 1, 0], 0, 0) @ power for b in range(spec.bands)]
        rows.append(np.log(np.array(bands) + spec.floor))
    return np.array(rows)


@pytest.mark.parametrize("spec", [Spectrogram(10), Spectrogram(10, bands=20, low_hz=200, high_hz=3500, window_ms=25)])
def test_energies_are_those_of_the_formula(spec):
    encoder, x = spec.build((STEP,)), sound()
    found, _ = encoder.log_energies(steps(x), encoder.initial(1)[0])
    np.testing.assert_allclose(found[0], log_mel(x, spec), atol=1e-3)


def test_a_sine_lies_in_its_band_at_a_quarter():
    encoder = Spectrogram(10, bands=20).build((STEP,))
    x = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    found, _ = encoder.log_energies(steps(x), encoder.initial(1)[0])
    filters = mel_filters(256, RATE, 20, 100, 4000)
    assert found[0, -1].argmax() == filters[32].argmax()  # 1000 Hz is frequency 32 of 256 samples.
    assert found[0, -1].exp().max() == pytest.approx(0.25 * filters[31:34].max(1) @ [0.25, 1, 0.25], rel=0.2)


def test_the_mean_of_the_recording_so_far_is_taken_away():
    spec, x = Spectrogram(10, settle_s=0.2), sound()
    encoder = spec.build((STEP,))
    encoder.fit(steps(sound(1, 5))[0].numpy())
    bands = log_mel(x, spec)
    own, count = 20, np.arange(1, len(bands) + 1)[:, None]
    means = (own * encoder.mean.numpy() + bands.cumsum(0)) / (own + count)
    found, _ = encoder(steps(x), encoder.initial(1))
    np.testing.assert_allclose(found[0], (bands - means) / encoder.deviation.numpy(), atol=1e-3)


@pytest.mark.parametrize("channels", [(), (4, 6)])
def test_chunks_of_sound_are_the_whole_up_to_rounding(channels):
    torch.manual_seed(0)
    encoder = Spectrogram(10, channels=channels).build((STEP,))
    encoder.fit(steps(sound(1, 5))[0].numpy())
    x = steps(sound(2))
    whole, last = encoder(x, encoder.initial(1))
    state, parts = encoder.initial(1), []
    for chunk in x.split(7, 1):
        part, state = encoder(chunk, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=0)
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_convolutions_see_neighbouring_bands_and_the_last_steps():
    torch.manual_seed(0)
    encoder, plain = Spectrogram(10, channels=(2, 3)).build((STEP,)), Spectrogram(10).build((STEP,))
    x = steps(sound())
    feature = plain(x, plain.initial(1))[0].detach().double().numpy().transpose(0, 2, 1)  # (channel band time)
    for convolution, wide in zip(encoder.convolutions, (5, 3), strict=True):
        weight, bias = (p.detach().double().numpy() for p in convolution.parameters())
        padded = np.pad(feature, ((0, 0), (wide // 2, wide // 2), (2, 0)))
        bands, time = feature.shape[1:]
        found = np.zeros((len(weight), -(-bands // 2), time))
        for band in range(found.shape[1]):
            for step in range(time):
                part = padded[:, 2 * band : 2 * band + wide, step : step + 3].transpose(0, 2, 1)
                found[:, band, step] = np.maximum(0, np.tensordot(weight, part, 3) + bias)
        feature = found
    flat = feature.reshape(-1, feature.shape[2]).T
    even = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    found = encoder(x, encoder.initial(1))[0][0].detach().numpy()
    assert found.shape == (len(flat), encoder.size)
    np.testing.assert_allclose(found, even, atol=1e-3)


def test_what_training_changes_is_left_alone_otherwise():
    spec, x = Spectrogram(10, warp=0.2, masks=2, mask_bands=6, mask_steps=6), steps(sound())
    encoder, plain = spec.build((STEP,)), Spectrogram(10).build((STEP,))
    torch.manual_seed(0)
    changed = encoder.train()(x, encoder.initial(1))[0]
    torch.testing.assert_close(encoder.eval()(x, encoder.initial(1))[0], plain(x, plain.initial(1))[0])
    hidden = changed[0] == 0
    assert 0 < hidden.all(0).sum() <= 12
    assert 0 < hidden.all(1).sum() <= 12
    # A sine that is stretched lies where a higher one would.
    encoder = Spectrogram(10, bands=20, warp=0.2).build((STEP,)).train()
    tone = steps(np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32))
    peaks = {int(encoder.log_energies(tone, encoder.initial(1)[0])[0][0, -1].argmax()) for _ in range(20)}
    assert len(peaks) > 1


def test_mu_law_is_that_of_the_formula():
    x = np.linspace(-1.2, 1.2, 1001)
    inside = np.clip(x, -1, 1)
    curve = np.sign(inside) * np.log(1 + 255 * np.abs(inside)) / np.log(256)
    levels = mu_law(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(levels, np.round((curve + 1) / 2 * 255))
    assert (levels.min(), levels.max()) == (0, 255)
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(mu_law(from_mu_law(every)), every)
    assert np.abs(from_mu_law(mu_law(torch.from_numpy(inside))).numpy() - inside).max() < 0.025
    encoder = MuLaw(10).build((STEP,))
    encoder.fit(steps(sound())[0].numpy())
    found, _ = encoder(steps(sound()), ())
    assert (float(found.mean()), float(found.std())) == pytest.approx((0, 1), abs=1e-3)


@pytest.mark.parametrize(
    ("spec", "raw", "said"),
    [
        (Spectrogram(10, high_hz=5000), (STEP,), "up to 4000"),
        (Spectrogram(10, bands=200), (STEP,), "lower --encoder.bands"),
        (Spectrogram(10), (8, 8), "stretch of samples"),
        (MuLaw(10), (8, 8), "stretch of samples"),
    ],
)
def test_what_does_not_fit_is_refused(spec, raw, said):
    with pytest.raises(UserError, match=said):
        spec.build(raw)


def test_a_step_is_a_whole_number_of_samples():
    assert Spectrogram(10).samples(16_000) == 160
    with pytest.raises(UserError, match=r"110\.25 samples"):
        Spectrogram(10).samples(11_025)
