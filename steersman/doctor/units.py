"""Dead ReLUs, saturated tanh, and gates that never move."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..nn.cores import Core
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


def layers(model: Model, feature: Tensor) -> Iterator[tuple[str, Core, Tensor]]:
    """Every simple core with its name and what it is given."""

    def walk(name: str, core: Core, x: Tensor) -> Iterator[tuple[str, Core, Tensor]]:
        inside = core.layers(core.initial(len(x)))
        if inside[0].core is core:
            yield name, core, x
            return
        for depth, (layer, given) in enumerate(core.fed(x, core.initial(len(x)))):
            yield from walk(f"layer {depth + 1}", layer.core, given)

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
        if core.activation == "relu":
            rows.append((name, _dead(core(x, core.initial(len(x)))[0])))
    return rows


def _dead(out: Tensor) -> float:
    return float((out.flatten(0, -2) <= 0).all(0).float().mean())


def examine_units(patient: Patient) -> list[Finding]:
    found, model = unit_findings(patient.sequence_model(), patient.held), patient.model
    feature = patient.held.feature[:1, :1]
    known = (core.activation or core.gates(x, core.initial(1)) for _, core, x in layers(model, feature))
    if not any(known) and not isinstance(model.encoder, ConvEncoder):
        raise Skipped(f"what goes on inside a {type(model.core).__name__} is not looked at")
    return found


@torch.no_grad()
def unit_findings(model: Model, held: Stretch) -> list[Finding]:
    """Findings on every layer of ReLUs, tanh and gates that is known."""
    found = []
    rows = silent_relus(model, held)
    if rows:
        where, share = max(rows, key=lambda row: row[1])
        found += above("dead-relu", share, DEAD, f"{share:.0%} of the ReLUs of {where} are 0 throughout")
    there = held.mask > 0
    for name, core, x in layers(model, held.feature):
        if core.activation == "tanh":
            y, _ = core(x, core.initial(len(x)))
            share = float((y[there].abs() > HIGH).float().mean())
            found += above("saturated-tanh", share, SATURATED, f"{share:.0%} of the values of {name} are beyond 0.95")
        gates = core.gates(x, core.initial(len(x)))
        found += _shares(name, core, gates, there)
        for gate, value in gates.items():
            found += _gate(name, gate, value[there]) if gate != "candidate" else []
    return found


def _shares(where: str, core: Core, gates: dict[str, Tensor], there: Tensor) -> list[Finding]:
    """What is never forgotten and never written, of a core whose gates say it."""
    shares = core.shares(gates) if gates else None
    if shares is None:
        return []
    kept, written = (share[there] for share in shares)
    found, open_ = [], _always(kept > HIGH)
    # Where one gate says both, what is always kept is what is never written.
    if not torch.allclose(kept + written, torch.ones(())):
        text = f"{open_:.0%} of the forget gates of {where} are above 0.95 nearly all the time"
        found += above("never-forgets", open_, STUCK, text)
    stuck = _always(written < LOW)
    text = f"{stuck:.0%} of the units of {where} let nothing in nearly all the time"
    return found + above("never-writes", stuck, STUCK, text)


def _always(true: Tensor) -> float:
    """Share of the units at which something is so nearly all the time (step unit)."""
    return float((true.float().mean(0) > ALWAYS).float().mean())


def _gate(where: str, gate: str, value: Tensor) -> list[Finding]:
    """Findings on one gate's values (step unit)."""
    bound = float(((value < LOW) | (value > HIGH)).float().mean())
    text = f"{bound:.0%} of the values of the {gate} gate of {where} are below 0.05 or above 0.95"
    return above("saturated-gates", bound, SATURATED_GATE, text)
