"""Sessions of other programs: each a sequence with a state of its own."""

import asyncio
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import isfinite

import numpy as np

from ..errors import UserError
from ..export.session import Stepping
from ..json_types import JsonObject
from ..nn.model import Model
from ..training.recipe import RowByRow
from .api import stepped
from .limits import Bucket, Limits, Refused, finite
from .pictures import decode, fitted

MOST_BYTES = 1000
"""Bytes of a JSON step, for each of its numbers."""
REMEMBERED = 1000
"""Sessions that ended, of which it is still known why."""


class Session:
    """One sequence; its steps are made one after another, each in a thread of the pool."""

    takes: str

    def __init__(self, number: str, limits: Limits, pool: ThreadPoolExecutor):
        self.id, self._limits, self._pool = number, limits, pool
        self.bucket, self.used, self.answered = Bucket(limits.rate_hz), time.monotonic(), 0
        self.busy = asyncio.Lock()

    def _reset(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no sequence")

    def _step(self, data: bytes | str) -> JsonObject:
        raise NotImplementedError(f"{type(self).__name__} has no step")

    async def step(self, data: bytes | str) -> JsonObject:
        """The prediction for a picture or a JSON step, and how long the model took; or that it begins anew, if told."""
        async with self.busy:
            self.used = time.monotonic()
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._step, data)

    async def reset(self) -> None:
        async with self.busy:
            self.used = time.monotonic()
            self._reset()

    def _begun(self) -> JsonObject:
        self._reset()
        self.answered += 1
        return {"type": "reset"}


class StepSession(Session):
    """Raw steps: pictures, characters or numbers."""

    def __init__(self, number: str, stepping: Stepping, limits: Limits, pool: ThreadPoolExecutor):
        super().__init__(number, limits, pool)
        self._sequence, self._model = stepping.session(), stepping.model
        self.takes = takes_of(self._model)

    def _reset(self) -> None:
        self._sequence.reset()

    def _step(self, data: bytes | str) -> JsonObject:
        shape = self._model.encoder.raw
        if self.takes == "picture" and isinstance(data, bytes):
            raw = fitted(decode(data, self._limits.pixels), shape)
        else:
            message = stepped(parsed(data, MOST_BYTES * (int(np.prod(shape)) if len(shape) < 3 else 1)))
            if "type" in message:
                return self._begun()
            if "row" in message:
                raise Refused("this model takes no rows of a table", 'send {"x": ...}')
            raw = numbers(message, self._model)
        began = time.perf_counter()
        prediction = self._sequence.step(raw)
        latency_ms = 1e3 * (time.perf_counter() - began)
        self.answered += 1
        finite(prediction)
        return {"prediction": prediction, "latency_ms": round(latency_ms, 3)}


class RowSession(Session):
    """Rows of a table, each answered as `predict` does."""

    takes = "row"

    def __init__(self, number: str, rows: Callable[[], RowByRow], limits: Limits, pool: ThreadPoolExecutor):
        super().__init__(number, limits, pool)
        self._rows, self._answer = rows, rows()

    def _reset(self) -> None:
        self._answer = self._rows()

    def _step(self, data: bytes | str) -> JsonObject:
        message = stepped(parsed(data, MOST_BYTES * (1 + len(self._answer.columns))))
        if "type" in message:
            return self._begun()
        if "row" not in message:
            raise Refused("this model takes rows of a table", 'send {"row": {column: value}}')
        began = time.perf_counter()
        try:
            said = self._answer(message["row"])
        except UserError as error:
            raise Refused(str(error), "mend the row") from error
        latency_ms = 1e3 * (time.perf_counter() - began)
        self.answered += 1
        shown = {name: None if isinstance(v, float) and not isfinite(v) else v for name, v in said.items()}
        return {"said": shown, "latency_ms": round(latency_ms, 3)}


def takes_of(model: Model) -> str:
    """What one of its steps is: a picture, a token or numbers."""
    if len(model.encoder.raw) == 3:
        return "picture"
    return "token" if model.encoder.symbols is not None else "numbers"


def parsed(data: bytes | str, most: int) -> JsonObject:
    """A JSON object, as strict as the standard, and no longer than `most`."""
    if len(data) > most:
        raise Refused(f"{len(data)} characters of JSON, over {most}", "send only what is asked for", 413)
    try:
        found = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Refused("this is not JSON", "send a JSON object, or a picture to a model that takes pictures") from None
    if not isinstance(found, dict):
        raise Refused("this JSON is not an object", 'send an object, such as {"type": "reset"}')
    return found


def _no_number(name: str) -> None:
    raise ValueError(name)


def numbers(message: JsonObject, model: Model) -> np.ndarray:
    """The step in a message: numbers in the model's shape, or one character or its number."""
    shape = model.encoder.raw
    if len(shape) == 3:
        raise Refused("this model takes pictures", "send a JPEG or PNG")
    x = message["x"]
    tokens = takes_of(model) == "token"
    if tokens and isinstance(x, str) and len(x) == 1:
        x = ord(x)
    do = 'send {"x": "a"} or its number' if tokens else f'send {{"x": numbers in the shape {list(shape)}}}'
    try:
        values = np.asarray(x)
    except ValueError:
        raise Refused("x is uneven", do) from None
    if values.dtype.kind not in ("i" if tokens else "if"):
        raise Refused("x is not of such numbers", do)
    if values.size != int(np.prod(shape)):
        raise Refused(f"x is of shape {list(values.shape)}", do)
    with np.errstate(over="ignore"):  # What is too large becomes infinite.
        values = values.astype(np.int64 if tokens else np.float32)
    if not np.isfinite(values).all() or (tokens and (values < 0).any()):
        raise Refused("x has a number that can't be taken", do)
    return values.reshape(shape)


class Sessions:
    """The open sessions: as many as the limit allows; one that nobody used for long is dropped, and it is known why."""

    def __init__(
        self,
        stepping: Stepping | None,
        limits: Limits,
        threads: int,
        no_step: str = "",
        rows: Callable[[], RowByRow] | None = None,
    ):
        """Without a stepping a session takes rows; without these none can be opened, and `no_step` says why."""
        self._stepping, self._limits, self._no_step, self._rows = stepping, limits, no_step, rows
        self._pool = ThreadPoolExecutor(threads, "step")
        self._open: dict[str, Session] = {}
        self._connected: set[Session] = set()
        self._ended: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open) + len(self._connected)

    def _new(self) -> Session:
        if self._stepping is None and self._rows is None:
            raise Refused(f"this model can't be run live a step at a time: {self._no_step}", "ask /api/say", 409)
        if len(self) >= self._limits.sessions:
            do = "end one, or start the server with a higher --limits.sessions"
            raise Refused(f"{self._limits.sessions} sessions are open already", do, 503)
        number = secrets.token_urlsafe(12)
        if self._stepping is not None:
            return StepSession(number, self._stepping, self._limits, self._pool)
        assert self._rows is not None
        return RowSession(number, self._rows, self._limits, self._pool)

    def open(self) -> Session:
        """One that lasts until it is ended or idle."""
        session = self._new()
        self._open[session.id] = session
        return session

    @contextmanager
    def opened(self) -> Iterator[Session]:
        """One that lasts as long as its connection, which knows by itself when it is idle."""
        session = self._new()
        self._connected.add(session)
        try:
            yield session
        finally:
            self._connected.discard(session)

    def __getitem__(self, number: str) -> Session:
        if number in self._open:
            return self._open[number]
        if number in self._ended:
            raise Refused(f"this session ended: {self._ended[number]}", "open another: POST /api/sessions", 410)
        raise Refused("there is no such session", "open one: POST /api/sessions", 404)

    def end(self, number: str, why: str) -> None:
        self._open.pop(self[number].id)
        self._ended[number] = why
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def sweep(self) -> None:
        """Drops those that are idle."""
        late = time.monotonic() - self._limits.idle_s
        for session in list(self._open.values()):
            if session.used < late and not session.busy.locked():
                self.end(session.id, idle(self._limits))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def idle(limits: Limits) -> str:
    return f"idle for over {limits.idle_s:g} s"
