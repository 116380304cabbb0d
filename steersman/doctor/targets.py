"""What the residuals say: wrong scale, the mean, the past, labels out of step."""

import numpy as np

from ..evaluation.metrics import lag_curve, rmse
from ..evaluation.ridge import ridge
from ..nn.heads import NumbersHead, tells_numbers
from .findings import Curve, Finding, Patient, Skipped, above, below
from .probes import fitted, lagged, regression_rows

SCALE = 2.0
"""Times that standardised targets may be wider or narrower than 1, or off 0 in deviations."""
FLAT = 0.15
"""Deviation of the prediction beside that of the truth; a poor but honest model reaches a third."""
CLOSER = 0.8
"""Error at the best lag beside that at none: a poor model of a smooth target has a best lag, too, but a shallow one."""
EARLY = 0.1
"""Share of the variance that inputs yet to come must add to a probe of those that came."""
LOOK = 10
"""Steps that labels may be out of step by."""


def _head(patient: Patient) -> NumbersHead:
    head = patient.sequence_model().head
    if not tells_numbers(head):
        raise Skipped("the targets are classes, which have no scale and no lag")
    return head


def examine_targets(patient: Patient) -> list[Finding]:
    return [*_scale(patient), *_residuals(patient)]


def _scale(patient: Patient) -> list[Finding]:
    head, worst = _head(patient), (1.0, "", "")
    for part, examples in patient.shown.items():
        y = np.concatenate([np.atleast_2d(e.y) for e in examples])
        z = (y - head.mean.cpu().numpy()) / head.deviation.cpu().numpy()
        for name, mean, deviation in zip(head.targets, z.mean(0), z.std(0), strict=True):
            ratio = max(deviation, 1 / max(deviation, 1e-9), 1 + abs(mean))
            if ratio > worst[0]:
                worst = float(ratio), part, f"{name}: after the normaliser mean {mean:.3g}, deviation {deviation:.3g}"
    ratio, part, text = worst
    # Few records kept apart may be of another kind by chance.
    return above("target-scale", ratio, SCALE if part == "train" else 2 * SCALE, f"{text}, in the {part} records")


def _residuals(patient: Patient) -> list[Finding]:
    model = patient.sequence_model()
    held = patient.shown["validation"]
    # Of several inputs, NaN may be meant.
    examples = [e for e in held if model.inputs or np.isfinite(np.asarray(e.x, float)).all()]
    if not examples:
        raise Skipped("no validation record is free of NaN")
    predicted = [p[:, 0].astype(float) for p in model.predict(examples)]
    truth = [np.atleast_2d(e.y)[:, 0].astype(float) for e in examples]
    said, was = np.concatenate(predicted), np.concatenate(truth)
    share = said.std() / max(was.std(), 1e-12)
    found = below(
        "predicts-mean", share, FLAT, f"the prediction's deviation is {share:.2g} of the truth's ({was.std():.3g})"
    )
    if model.flavour == "many-to-one" or found:
        return found
    rows = lag_curve(predicted, truth, LOOK)
    best = min(rows, key=lambda row: row["rmse"])
    last = [np.concatenate((t[:1], t[:-1])) for t in truth]
    error, repeat = rmse(said, was), rmse(np.concatenate(last), was)
    skill = 1 - error / max(repeat, 1e-12)
    evidence = (
        f"best lag {best['lag']} steps; skill over repeating the last value {skill:.2f} "
        f"(RMSE {error:.3g} against {repeat:.3g})"
    )
    curve = patient.keep(Curve([row["lag"] for row in rows], [row["rmse"] for row in rows], "lag (steps)", "RMSE"))
    if best["lag"] <= 0 or skill > 0 or best["rmse"] > CLOSER * error:
        return found
    return [*found, Finding("predicts-past", float(np.clip(-skill, 0.3, 1)), skill, evidence, curve)]


def examine_rivals(patient: Patient) -> list[Finding]:
    """Whether ridge regression on the same inputs, step by step, is off by less."""
    _head(patient)
    model, held = patient.sequence_model(), patient.shown["validation"]
    if model.flavour == "many-to-one":
        raise Skipped("a record has one answer: ridge regression is for an answer a step")
    said, was = (
        np.concatenate(v).astype(float) for v in ([p[:, 0] for p in model.predict(held)], [e.y[:, 0] for e in held])
    )
    error, line = rmse(said, was), rmse(np.concatenate(ridge(patient.shown["train"], held, held)), was)
    evidence = f"RMSE {error:.3g} on validation records, that of ridge regression on the same inputs {line:.3g}"
    return above("worse-than-ridge", error / max(line, 1e-12), 1.0, evidence)


def examine_alignment(patient: Patient) -> list[Finding]:
    """Whether inputs yet to come tell more of the target than all that came."""
    patient.sequence_model()
    x, y, lengths = regression_rows(patient)
    skip = 2 * LOOK if min(lengths["train"]) > 6 * LOOK else LOOK
    came = fitted(*lagged(x, y, lengths, range(LOOK + 1), skip))
    told = [fitted(*lagged(x, y, lengths, [-ahead], skip)) for ahead in range(LOOK + 1)]
    best = int(np.argmax(told))
    both = fitted(*lagged(x, y, lengths, [*range(LOOK + 1), -best], skip)) if best else came
    evidence = (
        f"the input {best} steps later tells {told[best]:.0%} of the target; that of the same step {told[0]:.0%}, "
        f"all {LOOK + 1} so far {came:.0%}, these and it {both:.0%}"
    )
    later = list(range(LOOK + 1))
    curve = patient.keep(Curve(later, told, "steps that the input comes later", "variance of the target told"))
    return above("misaligned", both - came, EARLY, evidence, curve)
