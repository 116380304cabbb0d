"""What a server bears: the number of every limit, and the buckets that keep a rate."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite

from ..config import Spec


class Refused(Exception):
    """What was wrong and what the client is to change; it says nothing of the machine, least of all a path."""

    def __init__(self, error: str, do: str, status: int = 400):
        super().__init__(f"{error}; {do}")
        self.error, self.do, self.status = error, do, status

    def json(self) -> dict[str, str]:
        return {"error": self.error, "do": self.do}


def finite(prediction: Mapping[str, float]) -> None:
    """Refused where a model says what is not a number, as one does whose training failed; JSON has no word for it."""
    if wrong := [name for name, value in prediction.items() if not isfinite(value)]:
        raise Refused(f"the model's {wrong[0]} is not a finite number", "look at its training, or begin anew", 500)


@dataclass(frozen=True)
class Limits(Spec):
    """Limits of a live server; who goes over one is told which."""

    sessions: int = 64
    """Sequences of other programs open at once."""
    viewers: int = 16
    """Pages that watch at once."""
    connections: int = 256
    """Connections at once, whatever they are for."""
    frame_bytes: int = 4 * 2**20
    """Bytes of one message or body."""
    pixels: int = 2**22
    """Pixels of one picture, read in its header before it is decoded."""
    rate_hz: float = 200.0
    """Messages a second of one session or page, in the mean over a second or two; on a WebSocket more of them wait."""
    characters: int = 2000
    """Characters of a text that something is to be said about."""
    say_s: float = 20.0
    """Seconds in which that has to be said."""
    idle_s: float = 120.0
    """Seconds without a step after which a session is dropped."""
    arrival_s: float = 10.0
    """Seconds in which the head of a request has to be there, and after that its body."""

    BOUNDS = {
        **dict.fromkeys(("sessions", "viewers", "connections", "frame_bytes", "pixels"), (1, inf)),
        "characters": (1, 10_000),
        "rate_hz": (1, 1e6),
        **dict.fromkeys(("say_s", "idle_s", "arrival_s"), (0.01, 1e6)),
    }


class Bucket:
    """Lets through `rate_hz` a second in the mean, and a second's worth at once."""

    def __init__(self, rate_hz: float, clock: Callable[[], float] = time.monotonic):
        self._rate, self._clock = rate_hz, clock
        self._most = self._tokens = max(1.0, rate_hz)
        self._seen = clock()

    @property
    def due_s(self) -> float:
        """Seconds until the next may pass."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._seen) * self._rate)
        self._seen = now
        return max(0.0, (1 - self._tokens) / self._rate)

    async def wait(self) -> None:
        """Waits until the next may pass, which it then does."""
        while due_s := self.due_s:
            await asyncio.sleep(due_s)
        self._tokens -= 1

    def take(self) -> None:
        """Refused where it is too often."""
        if self.due_s:
            raise Refused(f"over {self._rate:g} messages a second", "send fewer", 429)
        self._tokens -= 1
