"""Cores in continuous time: closed-form continuous-time cells."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contract import Core, CoreSpec, State


@dataclass(frozen=True)
class CfC(CoreSpec):
    """Closed-form continuous-time cell (Hasani et al. 2022, equation 10): its gate turns with the time elapsed."""

    hidden: int = 64
    """Units of the state."""
    backbone: int = 128
    """Units of the layer that input and state share."""
    elapsed: bool = False
    """The last feature of the input is the time since the sample before; otherwise each step takes 1."""

    BOUNDS = {"hidden": (1, inf), "backbone": (1, inf)}

    def build(self, features: int) -> "CfCCore":
        return CfCCore(self, features)


class CfCCore(Core):
    def __init__(self, spec: CfC, features: int):
        super().__init__()
        self.spec, self.features, self.size = spec, features, spec.hidden
        self.shared = nn.Linear(features - spec.elapsed + spec.hidden, spec.backbone)
        self.heads = nn.Linear(spec.backbone, 4 * spec.hidden)

    def initial(self, batch: int) -> State:
        return (self.shared.weight.new_zeros(batch, self.size),)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        h, shown = state[0], []
        elapsed = x[..., -1:] if self.spec.elapsed else x.new_ones(*x.shape[:2], 1)
        x = x[..., :-1] if self.spec.elapsed else x
        from_x = F.linear(x, self.shared.weight[:, : x.shape[2]], self.shared.bias)
        for t in range(x.shape[1]):
            shared = from_x[:, t] + F.linear(h, self.shared.weight[:, x.shape[2] :])
            a, b, rate, shift = self.heads(1.7159 * torch.tanh(0.666 * shared)).chunk(4, 1)
            gate = torch.sigmoid(rate * elapsed[:, t] + shift)
            new = (torch.tanh(a) * (1 - gate) + torch.tanh(b) * gate).to(h.dtype)
            there = (lengths > t).unsqueeze(1)
            h = torch.where(there, new, h)
            shown.append(torch.where(there, new, 0.0))
        y = torch.stack(shown, 1) if shown else h.new_zeros(len(h), 0, self.size)
        return y, (h,)
