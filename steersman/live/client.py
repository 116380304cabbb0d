"""A live server from another program, in a few lines.

with Client("http://127.0.0.1:8765/?token=...") as live:
    for picture in pictures:
        print(live.step(picture)["prediction"]["steer"])
"""

import json
from contextlib import ExitStack
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ..errors import UserError
from ..json_types import JsonObject

SCHEMES = {"http": "ws", "ws": "ws", "https": "wss", "wss": "wss"}
CLOSED_S = 2.0
"""Seconds in which a server has to answer a goodbye."""


class Client:
    """One session: a sequence that begins when it is opened. UserError where the server refuses something."""

    def __init__(self, address: str, token: str = "", timeout_s: float = 30.0):
        """`address` as `steersman live` printed it, or without its token, which is then given beside it."""
        try:
            from websockets.exceptions import InvalidStatus, WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise UserError(f"{error.name} is not installed; run: pip install 'steersman[live]'") from None
        parts = urlsplit(address)
        scheme = SCHEMES.get(parts.scheme)
        if scheme is None or not parts.netloc:
            raise UserError(
                f"{parts.scheme}://{parts.netloc} is not the address of a live server; give http://HOST:PORT"
            )
        token = token or parse_qs(parts.query).get("token", [""])[0]
        self._timeout_s, self._open = timeout_s, ExitStack()
        try:
            self._socket = self._open.enter_context(
                connect(
                    f"{scheme}://{parts.netloc}/api/step",
                    additional_headers={"Authorization": f"Bearer {token}"},
                    compression=None,
                    proxy=None,
                    open_timeout=timeout_s,
                    close_timeout=CLOSED_S,
                )
            )
        except InvalidStatus as error:
            raise _refused(_json(error.response.body)) from None
        except (OSError, WebSocketException) as error:
            raise UserError(f"no live server answers at {parts.netloc} ({error}); start one: steersman live") from None

    def step(self, x: np.ndarray | bytes | str | int | list[float]) -> JsonObject:
        """What is said of one step: `prediction` by name, `n`, `latency_ms`, `dropped`.

        A picture (height width 3) uint8, which is sent as it is to the bit, or a JPEG or PNG as bytes; or a character,
        its number, or numbers.
        """
        if isinstance(x, np.ndarray) and x.ndim == 3:
            from .pictures import png

            x = png(x)
        elif isinstance(x, np.ndarray):
            x = x.tolist()
        return self._asked(x if isinstance(x, bytes) else json.dumps({"x": x}))

    def reset(self) -> None:
        """Begins the sequence anew."""
        self._asked('{"type": "reset"}')

    def _asked(self, message: bytes | str) -> JsonObject:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(message)
            answer = json.loads(self._socket.recv(self._timeout_s))
        except TimeoutError:
            self.close()  # Else its late answer would be taken for that of the next step.
            raise UserError(
                f"the live server said nothing for {self._timeout_s:g} s; look at it, then open another session"
            ) from None
        except ConnectionClosed as error:
            why = (error.rcvd.reason or "it was over") if error.rcvd else "it broke off"
            raise UserError(f"the live server closed the session: {why}; open another") from None
        if "error" in answer:
            raise _refused(answer)
        if answer.get("type") == "goodbye":
            raise UserError(f"the live server closed the session: {answer['why']}; open another")
        return answer

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _json(body: bytes | bytearray) -> JsonObject:
    """The JSON of a refusal; empty where it comes from something else on the way."""
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refused(answer: JsonObject) -> UserError:
    return UserError(f"{answer.get('error', 'the live server refused the session')}; {answer.get('do', 'try again')}")
