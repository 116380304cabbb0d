"""The first loss beside what is to be expected, and training beside held-out loss."""

from .findings import Curve, Finding, Patient, above
from .surface import blank_loss

HIGH_START, HIGH_START_CLASSES = 2.0, 1.25
"""Times the loss of a model that knows nothing. Of numbers one small batch may be half above it by chance; of classes
that loss is the logarithm of their number, whatever the batch."""
GAP = 0.25
"""Held-out less training loss, as a share of the loss of a model that knows nothing."""
ROSE = 0.05
"""The same share, by which the last look at the held-out loss is above the best where it has risen."""


def examine_start(patient: Patient) -> list[Finding]:
    if not patient.log or not patient.model.aligned:
        return []
    expected, first = blank_loss(patient.model, patient.learned), patient.log[0]["loss"]
    evidence = f"the first loss is {first:.4g}; a model that knows nothing has {expected:.4g}"
    most = HIGH_START_CLASSES if patient.model.head.classes else HIGH_START
    return above("initial-loss", first / max(expected, 1e-12), most, evidence)


def examine_gap(patient: Patient) -> list[Finding]:
    """Held-out beside training loss; of weights that training went on from to worse, that of its last look."""
    model = patient.sequence_model()
    most = patient.shown["train"][: max(4, 2 * len(patient.shown["validation"]))]
    train, held = (model.held_out_loss(part) for part in (most, patient.shown["validation"]))
    looks = [(row["step"], row["validation"]) for row in patient.log if row.get("validation") is not None]
    # The best weights are kept: what training went on to is told by the last look.
    last = looks[-1][1] if looks else held
    best = min(value for _, value in looks) if looks else held
    late = [row["loss"] for row in patient.log[-20:]]
    idle = blank_loss(model, patient.learned)
    rose = last - best > ROSE * idle
    train = min(train, sum(late) / len(late)) if late and rose else train
    worst = max(held, last)
    evidence = (
        f"held-out loss {worst:.4g}, training loss {train:.4g}; the best held-out loss was {best:.4g}, "
        f"that of a model that knows nothing {idle:.4g}"
    )
    curve = None
    if looks:
        curve = patient.keep(Curve([s for s, _ in looks], [v for _, v in looks], "training step", "held-out loss"))
    return above("overfit", (worst - train) / max(idle, 1e-12), GAP, evidence, curve)
