"""Cores from torch's recurrent layers and back, with the same weights."""

from typing import Any
from warnings import warn

import torch
from torch import nn

from .composed import BidirectionalCore, StackCore
from .contract import Core
from .gated import GRU, LSTM, RNN, Cell

_KINDS: dict[Any, type[RNN | GRU | LSTM]] = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM}


def from_torch(layer: nn.RNN | nn.GRU | nn.LSTM) -> Core:
    """The same core, with the same weights: all layers and directions; without a bias, biases of 0.

    What is frozen stays so. A core is batch first: a layer that is not gets a warning. ValueError for anything else
    than these layers, for a subclass with a `forward` of its own, and for weights that are computed from others
    (weight_norm, pruning).
    """
    kind = _kind(layer)
    if not layer.batch_first:
        warn(
            f"from_torch: this {kind.__name__} takes (time, batch, feature) and its core (batch, time, feature); turn "
            "what you give it and what it gives by transpose(0, 1), or make the layer with batch_first=True",
            stacklevel=2,
        )
    computed = [name for name in layer._flat_weights_names if name not in layer._parameters]
    if computed:
        raise ValueError(
            f"from_torch: expected weights that are parameters; {', '.join(computed)} of this {kind.__name__} "
            "is computed from others: make it permanent first (torch.nn.utils.parametrize.remove_parametrizations, "
            "remove_weight_norm, prune.remove)"
        )
    parts = []
    for depth in range(layer.num_layers):
        ways = [_cell_from(layer, f"l{depth}{way}") for way in ("", "_reverse")[: 1 + layer.bidirectional]]
        parts.append(BidirectionalCore(*ways) if layer.bidirectional else ways[0])
    core = parts[0] if len(parts) == 1 else StackCore(parts, layer.dropout)
    return core.train(layer.training)


def _kind(layer: Any) -> Any:
    """Which of torch's layers it is."""
    kind = next((kind for kind in _KINDS if isinstance(layer, kind)), None)
    if kind is None:
        raise ValueError(f"from_torch: expected nn.RNN, nn.GRU or nn.LSTM, got {type(layer).__name__}")
    if type(layer).forward is not kind.forward:
        raise ValueError(
            f"from_torch: expected nn.{kind.__name__}; {type(layer).__name__} has a `forward` of its own, which its "
            "core would not follow"
        )
    return kind


def _cell_from(layer: nn.RNNBase, name: str) -> Cell:
    weight = getattr(layer, f"weight_ih_{name}")
    options: dict[str, Any] = {"hidden": layer.hidden_size}
    if isinstance(layer, nn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    if layer.proj_size:
        options["projection"] = layer.proj_size
    core = _KINDS[_kind(layer)](**options).build(weight.shape[1]).to(weight)
    with torch.no_grad():
        for ours, theirs in _TORCH_NAMES.items():
            parameter = getattr(core, ours, None)
            if parameter is not None:
                given = getattr(layer, f"{theirs}_{name}", None)
                parameter.zero_() if given is None else parameter.copy_(given)
                parameter.requires_grad_((weight if given is None else given).requires_grad)
    return core


_TORCH_NAMES = {
    "weight_ih": "weight_ih",
    "weight_hh": "weight_hh",
    "bias_ih": "bias_ih",
    "bias_hh": "bias_hh",
    "projection": "weight_hr",
}


def to_torch(core: Core) -> nn.RNN | nn.GRU | nn.LSTM:
    """torch's layer (batch first) with the same weights, frozen ones too. ValueError where torch has no such layer."""
    layers = list(core.cores) if isinstance(core, StackCore) else [core]
    both = isinstance(layers[0], BidirectionalCore)
    rows = [[c.forwards, c.backwards] if isinstance(c, BidirectionalCore) else [c] for c in layers]
    first = rows[0][0]
    spec: Any = getattr(first, "spec", None)
    same = all(getattr(cell, "spec", None) == spec and len(row) == 1 + both for row in rows for cell in row)
    fancy = any(getattr(spec, name, False) for name in ("peepholes", "layer_norm", "weight_dropout"))
    plain = isinstance(spec, RNN | GRU | LSTM) and not fancy and getattr(spec, "reset", "after") == "after"
    deep = isinstance(core, StackCore)
    if not same or not plain or (deep and (core.residual or (core.locked and core.dropout))):
        raise ValueError(f"to_torch: torch has no layer like {spec or type(core).__name__} with these options")
    kind = next(torch_kind for torch_kind, ours in _KINDS.items() if isinstance(spec, ours))
    options: dict[str, Any] = {"nonlinearity": spec.nonlinearity} if isinstance(spec, RNN) else {}
    if isinstance(spec, LSTM):
        options["proj_size"] = spec.projection
    layer = kind(
        core.features, spec.hidden, len(layers), batch_first=True, bidirectional=both,
        dropout=core.dropout if deep else 0.0, **options,
    ).to(first.weight_ih)  # fmt: skip
    with torch.no_grad():
        for depth, row in enumerate(rows):
            for cell, way in zip(row, ("", "_reverse"), strict=False):
                for ours, theirs in _TORCH_NAMES.items():
                    given = getattr(cell, ours, None)
                    if given is not None:
                        getattr(layer, f"{theirs}_l{depth}{way}").copy_(given).requires_grad_(given.requires_grad)
    return layer.train(core.training)
