"""Recipe of records of patients: diagnose."""

from collections.abc import Sequence

from ...data.augment import Unmeasured
from ...data.batches import Windows
from ...data.records import Record
from ...data.splits import Split
from ...nn.cores import GRU, Pooled
from ...nn.encoders import Observed
from ...nn.heads import Classification
from ...sources.physionet import DESCRIPTORS, DIED, OUTCOME, SKEWED
from ...sources.synthetic import Patients
from ...training.trainer import Training
from ..series.kinds import Labelled
from .task import Diagnosis

HOURS = "time_h"


def diagnose(records: Sequence[Record] = ()) -> Labelled:
    """How a stay in intensive care ends, from what was measured in its first 48 hours; many to one.

    Command: `steersman train diagnose --data set-a`
    Data:    a set of PhysioNet 2012, or tables with a class a series (--series, --label); without any, made-up patients
    Time:    half a minute for 4,000 patients
    Expect:  an AUROC of 0.858 on set b by the mean of five folds; boosting on summaries has 0.871, their blend 0.874
             (docs/results/diagnosis.md)

    It is research, not a medical device: nobody is to be treated by what it says.
    """
    there = records[0].streams if records else {HOURS: None, OUTCOME: None, **dict.fromkeys(DESCRIPTORS[:2])}
    return Labelled(
        source=Patients(),
        time=HOURS if HOURS in there else "",
        label=(OUTCOME,) if OUTCOME in there else (),
        static=tuple(name for name in DESCRIPTORS if name in there),
        logs=tuple(name for name in SKEWED if name in there),
        answer="class",
        every_s=3600.0,
        task=Diagnosis(DIED if OUTCOME in there else ""),
        encoder=Observed("last"),
        core=Pooled(GRU(32), inputs=True),
        head=Classification(dropout=0.4),
        flavour="many-to-one",
        batches=Windows(batch_size=64),
        augment=(Unmeasured(0.2),),
        split=Split(validation=0.1, test=0.2),
        training=Training(
            steps=400,
            learning_rate=3e-3,
            weight_decay=0.05,
            warmup=50,
            ema_decay=0.99,
            validate_every=50,
            precision="float32",
        ),
    )
