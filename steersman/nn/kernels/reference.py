"""The recurrences in plain PyTorch: for any device and type, and what the C++ kernels are tested against.

Arguments and results are those of the functions of the same names in `steersman.nn.kernels`.
"""

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F


def lstm(
    inputs: Tensor,
    recurrent: Tensor,
    h: Tensor,
    c: Tensor,
    lengths: Tensor | None,
    projection: Tensor | None = None,
    peepholes: Tensor | None = None,
    normal: tuple[Tensor, Tensor, Tensor] | None = None,
    epsilon: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    shown = []
    for t in range(inputs.shape[1]):
        product = F.linear(h, recurrent)
        if normal is not None:
            product = F.layer_norm(product, product.shape[1:], normal[0], None, epsilon)
        i, f, g, o = (inputs[:, t] + product).chunk(4, 1)
        if peepholes is not None:
            i, f = i + peepholes[0] * c, f + peepholes[1] * c
        new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        if peepholes is not None:
            o = o + peepholes[2] * new_c
        cell = new_c if normal is None else F.layer_norm(new_c, new_c.shape[1:], normal[1], normal[2], epsilon)
        new_h = torch.sigmoid(o) * torch.tanh(cell)
        if projection is not None:
            new_h = F.linear(new_h, projection)
        h, y = advance(lengths, t, new_h, h)
        c, _ = advance(lengths, t, new_c, c)
        shown.append(y)
    return stacked(shown, h), h, c


def gru(
    inputs: Tensor, recurrent: Tensor, bias: Tensor, h: Tensor, lengths: Tensor, reset_after: bool = True
) -> tuple[Tensor, Tensor]:
    size, shown = h.shape[1], []
    for t in range(inputs.shape[1]):
        x = inputs[:, t]
        gates = torch.sigmoid(x[:, : 2 * size] + F.linear(h, recurrent[: 2 * size], bias[: 2 * size]))
        r, z = gates.chunk(2, 1)
        if reset_after:
            n = r * F.linear(h, recurrent[2 * size :], bias[2 * size :])
        else:
            n = F.linear(r * h, recurrent[2 * size :], bias[2 * size :])
        n = torch.tanh(x[:, 2 * size :] + n)
        h, y = advance(lengths, t, n + z * (h - n), h)
        shown.append(y)
    return stacked(shown, h), h


def rnn(inputs: Tensor, recurrent: Tensor, h: Tensor, lengths: Tensor, relu: bool = False) -> tuple[Tensor, Tensor]:
    shown = []
    for t in range(inputs.shape[1]):
        new = inputs[:, t] + F.linear(h, recurrent)
        h, y = advance(lengths, t, torch.relu(new) if relu else torch.tanh(new), h)
        shown.append(y)
    return stacked(shown, h), h


def scan(a: Tensor, b: Tensor, h: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    shown = []
    for t in range(a.shape[1]):
        h, y = advance(lengths, t, a[:, t] * h + b[:, t], h)
        shown.append(y)
    return stacked(shown, h), h


def min_gru(gate: Tensor, candidate: Tensor, h: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    z = torch.sigmoid(gate)
    return scan(1 - z, z * positive(candidate), h, lengths)


def positive(x: Tensor) -> Tensor:
    """g of Feng et al. 2024: x + 1/2 above zero, sigmoid(x) below, so that its logarithm exists."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


def rotate(rotation: Tensor, inputs: Tensor, h: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    real, imaginary = rotation
    shown = []
    for t in range(inputs.shape[1]):
        a, b = h.chunk(2, 1)
        turned = torch.cat((real * a - imaginary * b, real * b + imaginary * a), 1)
        h, y = advance(lengths, t, turned + inputs[:, t], h)
        shown.append(y)
    return stacked(shown, h), h


def there(lengths: Tensor, time: int) -> Bool[Tensor, "batch time 1"]:
    """Mask of the steps that are not padding."""
    return (torch.arange(time, device=lengths.device) < lengths.unsqueeze(1)).unsqueeze(2)


def sound(x: Tensor, lengths: Tensor) -> Tensor:
    """The same steps (batch time ...), and 0 beyond each row's length."""
    return torch.where(there(lengths, x.shape[1]), x, 0.0)


def advance(lengths: Tensor | None, t: int, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """State and output of rows that last beyond step t, as all do without lengths; others keep theirs and give 0."""
    if lengths is None:
        return new, new
    there = (lengths > t).unsqueeze(1)
    return torch.where(there, new, old), torch.where(there, new, 0.0)


def stacked(shown: list[Tensor], h: Tensor) -> Tensor:
    """Outputs of all steps, (batch time hidden)."""
    return torch.stack(shown, 1) if shown else h.new_zeros(len(h), 0, h.shape[1])
