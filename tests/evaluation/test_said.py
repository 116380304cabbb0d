"""The task of a sequence that is said about whatever was read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import small

from steersman.data.batches import Ragged
from steersman.data.pairs import padded
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.training.fit import fit
from steersman.training.task import task_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = replace(small("translate"), task=None)
    training = replace(recipe.training, steps=60, learning_rate=1e-2, warmup=5, validate_every=20)
    return fit(
        "said", replace(recipe, training=training), tmp_path_factory.mktemp("said") / "run", say=lambda line: None
    )


def test_it_is_the_usual_task_of_what_says_sequences_and_beats_frequencies(run):
    assert type(task_of(run.recipe)).__name__ == "SaySequence"
    scores = report_run(run)
    assert scores["value"] == scores["nats"] < scores["baselines"]["majority"]["nats"]
    page = (run.folder / "report.html").read_text()
    assert "nats a token" in page
    assert "said greedily" in page


def test_nats_are_those_of_the_model_a_token_at_a_time(run):
    model = run.model()
    pairs = run.recipe.examples(model, run.records()["test"])
    nats, right = [], []
    for pair in pairs:
        state = model.read({name: Ragged(*padded([values])) for name, values in pair.sources.items()})
        for token, after in zip(pair.target[:-1], pair.target[1:], strict=True):
            with torch.no_grad():
                logits, state = model.step(torch.tensor([token]), state)
            nats.append(-float(logits.log_softmax(1)[0, after]))
            right.append(int(logits.argmax()) == after)
    scores = report_run(run)
    assert scores["nats"] == pytest.approx(np.mean(nats), rel=1e-4)
    assert scores["accuracy"] == pytest.approx(np.mean(right))


def test_a_translation_is_not_scored_where_none_is_made():
    recipe = small("translate")
    other = replace(recipe, encoder=replace(recipe.encoder, stream="german"))
    with pytest.raises(UserError, match="TranslateText scores a text `target` said about a text `source`"):
        task_of(other)
