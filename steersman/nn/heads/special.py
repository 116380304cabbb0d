"""Functions of probability that PyTorch lacks, element by element, in float64 where they are asked in it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TERMS = 4000
"""Most terms of a continued fraction; it takes about the root of its larger argument."""
ROUNDS = 200
"""Most steps of a search; each at least halves the bracket every other time."""


def positive(raw: Tensor, at_zero: float | Tensor = 1.0, floor: float = 1e-3) -> Tensor:
    """A number above `floor` times `at_zero`, which is what it is of 0; linear in large outputs, so that none overflow.

    The shifted softplus of DeepAR (Salinas et al. 2020).
    """
    shift = np.log(np.expm1(1 - floor))
    return at_zero * (floor + F.softplus(raw + shift))


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """Logarithm of the beta function."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def incomplete_beta(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Regularised incomplete beta function, by its continued fraction (DLMF 8.17.22) and Lentz's way to take it."""
    a, b, x = torch.broadcast_tensors(a, b, x)
    turned = x > (a + 1) / (a + b + 2)
    a, b, x = torch.where(turned, b, a), torch.where(turned, a, b), torch.where(turned, 1 - x, x)
    inside = (x > 0) & (x < 1)
    safe = torch.where(inside, x, 0.5)
    front = torch.exp(a * safe.log() + b * torch.log1p(-safe) - log_beta(a, b)) / a
    found = torch.where(inside, front / _fraction(a, b, safe), (x >= 1).to(x.dtype))
    return torch.where(turned, 1 - found, found).clamp(0, 1)


def _fraction(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    least, tiny = torch.finfo(x.dtype).eps, torch.finfo(x.dtype).tiny

    def away(v: Tensor) -> Tensor:
        return torch.where(v.abs() < tiny, tiny, v)

    value = c = torch.ones_like(x)
    d = torch.zeros_like(x)
    for n in range(1, TERMS):
        m = n // 2
        if n % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / away(1 + term * d), away(1 + term / c)
        value = value * c * d
        if not ((c * d - 1).abs() > 4 * least).any():
            break
    return value


def student_cdf(t: Tensor, freedom: Tensor) -> Tensor:
    """Distribution function of Student's t."""
    tail = incomplete_beta(freedom / 2, torch.full_like(freedom, 0.5), freedom / (freedom + t * t)) / 2
    return torch.where(t > 0, 1 - tail, tail)


def negative_binomial_cdf(k: Tensor, size: Tensor, mean: Tensor) -> Tensor:
    """Probability of at most k (any number) in a negative binomial of that size, which is 1 / dispersion."""
    found = incomplete_beta(size, k.floor().clamp_min(0) + 1, size / (size + mean))
    return torch.where(k < 0, 0.0, found)


def inverted(
    cdf: Callable[[Tensor], Tensor], density: Callable[[Tensor], Tensor], level: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Where a rising function reaches a level, between two bounds: Newton's steps, halving where one leads outside."""
    x = (low + high) / 2
    for _ in range(ROUNDS):
        over = cdf(x) - level
        low, high = torch.where(over < 0, x, low), torch.where(over > 0, x, high)
        step = x - over / density(x)
        middle = (low + high) / 2
        # A step to the very edge has not shrunk the bracket: halving does.
        new = torch.where((step > low) & (step < high), step, middle)
        done = (new - x).abs() <= 1e-13 * (1 + x.abs())
        x = torch.where(over == 0, x, new)
        if bool((done | (over == 0)).all()):
            break
    return x


def hypergeometric_half_two(a: Tensor, x: Tensor) -> Tensor:
    """Gauss's 2F1(a, 1/2; 2; -x) for a, x > 0, by Euler's integral.

    With t = u^2 / (1 + u^2) it runs over u from 0 to infinity, and with u = w e^v over all v, where the trapezoidal
    rule converges geometrically; w is the width of its peak.
    """
    v = torch.arange(-30.0, 30.0, 0.15, dtype=a.dtype, device=a.device)
    u = v.exp() / (a * x).sqrt().clamp_min(1).unsqueeze(-1)
    share = u * u / (1 + u * u)
    log = v - torch.log1p(u * u) * 2 - a.unsqueeze(-1) * torch.log1p(x.unsqueeze(-1) * share)
    return log.exp().sum(-1) * 0.15 * 4 / torch.pi / (a * x).sqrt().clamp_min(1)
