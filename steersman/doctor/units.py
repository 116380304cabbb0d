"""Dead ReLUs, saturated tanh, and gates that never move."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..nn.cores import Core, GRUCore, LSTMCore, RNNCore
from ..nn.model import Model
from ..nn.pictures import ConvEncoder
from .findings import Finding, Patient, Skipped, Stretch, above

LOW, HIGH = 0.05, 0.95
"""Where a gate counts as shut and as open."""
ALWAYS = 0.95
"""Share of the time at which a unit counts as always so."""
DEAD = 0.5
"""Share of a layer's ReLUs; small healthy networks have up to two fifths that never fire on a sample."""
SATURATED, SATURATED_GATE = 0.5, 0.7
"""Share of values of tanh, and of gates, at their bounds: healthy gates of a text learned for long reach 0.55."""
STUCK = 0.4
"""Share of a layer's units whose gate never moves from its bound."""


@torch.no_grad()
def gates(core: Core, x: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Output, and every gate's value at every step (row step unit), of a core whose gates are known; else None."""
    if not isinstance(core, LSTMCore | GRUCore | RNNCore):
        return None
    y, _ = core(x, core.initial(len(x)))
    if isinstance(core, RNNCore):
        return y, {}
    if isinstance(core, LSTMCore) and (core.peepholes is not None or core.gain is not None):
        return None  # Their gates see more than input and output.
    before = torch.cat((torch.zeros_like(y[:, :1]), y[:, :-1]), 1)
    wide = x @ core.weight_ih.T + core.bias_ih + before @ core.weight_hh.T + core.bias_hh
    if isinstance(core, LSTMCore):
        i, f, _, o = wide.split(core.hidden, 2)
        return y, {"input": i.sigmoid(), "forget": f.sigmoid(), "output": o.sigmoid()}
    if core.spec.reset == "before":
        return None
    r, z, _ = wide.split(core.hidden, 2)
    return y, {"reset": r.sigmoid(), "update": z.sigmoid()}


def layers(model: Model, feature: Tensor) -> Iterator[tuple[str, Core, Tensor]]:
    """Every simple core with what it is given."""

    def walk(name: str, core: Core, x: Tensor) -> Iterator[tuple[str, Core, Tensor]]:
        inner = getattr(core, "cores", None)
        if inner is None:
            yield name, core, x
            return
        for depth, one in enumerate(inner):
            yield from walk(f"layer {depth + 1}", one, x)
            with torch.no_grad():
                y = one(x, one.initial(len(x)))[0]
            x = y + x if getattr(core, "residual", False) and y.shape == x.shape else y

    return walk("the core", model.core, feature)


@torch.no_grad()
def silent_relus(model: Model, held: Stretch) -> list[tuple[str, float]]:
    """Share of each ReLU layer's units that are 0 for every input."""
    rows = []
    if isinstance(model.encoder, ConvEncoder):
        seen: dict[str, Tensor] = {}
        hooks = [
            layer.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
            for name, layer in model.encoder.convolutions.named_children()
            if isinstance(layer, nn.ReLU)
        ]
        try:
            feature = model.encoder(held.x, model.encoder.initial(len(held.x)))[0]
        finally:
            for hook in hooks:
                hook.remove()
        rows = [(f"convolution {i + 1}", _dead(out.movedim(1, -1))) for i, out in enumerate(seen.values())]
        rows.append(("the dense layer", _dead(feature)))
    for name, core, x in layers(model, held.feature):
        if isinstance(core, RNNCore) and core.spec.nonlinearity == "relu":
            rows.append((name, _dead(core(x, core.initial(len(x)))[0])))
    return rows


def _dead(out: Tensor) -> float:
    return float((out.flatten(0, -2) <= 0).all(0).float().mean())


def examine_units(patient: Patient) -> list[Finding]:
    found, model = unit_findings(patient.sequence_model(), patient.held), patient.model
    known = any(gates(core, x) is not None for _, core, x in layers(model, patient.held.feature))
    if not known and not isinstance(model.encoder, ConvEncoder):
        raise Skipped(f"what goes on inside a {type(model.core).__name__} is not looked at")
    return found


def unit_findings(model: Model, held: Stretch) -> list[Finding]:
    """Of every layer of ReLUs, tanh and gates that is known."""
    found = []
    rows = silent_relus(model, held)
    if rows:
        where, share = max(rows, key=lambda row: row[1])
        found += above("dead-relu", share, DEAD, f"{share:.0%} of the ReLUs of {where} are 0 throughout")
    there = held.mask > 0
    for name, core, x in layers(model, held.feature):
        looked = gates(core, x)
        if looked is None:
            continue
        y, values = looked
        if isinstance(core, RNNCore) and core.spec.nonlinearity == "tanh":
            share = float((y[there].abs() > HIGH).float().mean())
            found += above("saturated-tanh", share, SATURATED, f"{share:.0%} of the values of {name} are beyond 0.95")
        for gate, value in values.items():
            found += _gate(name, gate, value[there])
    return found


def _gate(where: str, gate: str, value: Tensor) -> list[Finding]:
    """Of one gate's values (step unit)."""
    low, high = (value < LOW).float(), (value > HIGH).float()
    shut, open_ = (float((share.mean(0) > ALWAYS).float().mean()) for share in (low, high))
    found = []
    if gate == "forget":
        text = f"{open_:.0%} of the forget gates of {where} are above 0.95 nearly all the time"
        found += above("never-forgets", open_, STUCK, text)
    if gate in ("input", "update"):
        # A GRU's update gate is the share of the state that is kept: open, nothing is written.
        stuck = shut if gate == "input" else open_
        text = f"{stuck:.0%} of the {gate} gates of {where} let nothing in nearly all the time"
        found += above("never-writes", stuck, STUCK, text)
    bound = float((low + high).mean())
    text = f"{bound:.0%} of the values of the {gate} gate of {where} are below 0.05 or above 0.95"
    return found + above("saturated-gates", bound, SATURATED_GATE, text)
