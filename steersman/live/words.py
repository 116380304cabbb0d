"""Words about words: what a model that reads a whole text says about one."""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ..errors import NotFinite, UserError
from ..json_types import JsonMapping, JsonObject
from ..training.run import Run
from ..training.task import Speaker, task_of
from .api import MOST_WEIGHTS
from .limits import Bucket, Limits, Refused, finite

PLACES = 3
"""Decimal places of a weight."""


def speaker_of(run: Run) -> Speaker | None:
    """What says something about texts; None where the run's application has no words."""
    try:
        return task_of(run.recipe).speaker(run)
    except UserError:  # A recipe of one's own that nobody can score, a text model that can't be streamed.
        return None


class Words:
    """One text at a time, in a thread of its own, for all who ask."""

    def __init__(self, speaker: Speaker, limits: Limits):
        self._speaker, self._limits = speaker, limits
        self._bucket = Bucket(limits.rate_hz)
        self._pool = ThreadPoolExecutor(1, "words")
        self._saying: Future[JsonObject] | None = None

    async def say(self, text: str) -> JsonObject:
        """What is said about a text. Refused where another is not done yet, or this one takes too long."""
        self._bucket.take()
        if (
            self._saying is not None and not self._saying.done()
        ):  # Also one that was given up: no thread can be stopped.
            raise Refused("something is being said already", "send the next text after its answer", 409)
        self._saying = self._pool.submit(self._said, text)
        try:
            async with asyncio.timeout(self._limits.say_s):
                return await asyncio.shield(asyncio.wrap_future(self._saying))
        except TimeoutError:
            raise Refused(f"nothing was said within {self._limits.say_s:g} s", "send a shorter text", 503) from None

    def _said(self, text: str) -> JsonObject:
        began = time.perf_counter()
        try:
            found: JsonObject = self._speaker.say(text) if text.strip() else {"text": ""}
        except UserError as error:
            raise Refused(str(error), "change the text") from error
        except NotFinite:
            raise Refused("the model's state grows to NaN or infinity", "look at its training", 500) from None
        score = found.get("score")
        if score is not None:
            finite({"score": score})
        return {
            "text": found["text"],
            "pieces": list(found.get("pieces", ())),
            "unknown": int(found.get("unknown", 0)),
            "score": None if score is None else round(float(score), 4),
            "attention": _shown(found.get("attention")),
            "latency_ms": round(1e3 * (time.perf_counter() - began), 3),
        }

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _shown(attention: JsonMapping | None) -> JsonObject | None:
    """Attention as it is sent; None where there is none, or more of it than can be seen."""
    if attention is None:
        return None
    weights = np.asarray(attention["weights"], np.float64)
    if not 0 < weights.size <= MOST_WEIGHTS or not np.isfinite(weights).all():
        return None
    shown = np.round(np.clip(weights, 0, 1), PLACES).tolist()
    return {"source": list(attention["source"]), "target": list(attention["target"]), "weights": shown}
