"""Runs an app on a port until it is stopped, and tells every client when that happens."""

import asyncio
import errno
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import h11
import torch
import uvicorn
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from ..errors import UserError
from .app import Live
from .guards import EVERYWHERE, Guard, origin
from .limits import Limits, Refused
from .viewers import Audience

PRIVATE = {
    H11Protocol: ("app", "conn", "connections", "cycle", "loop", "transport", "data_received", "send_400_response"),
    RequestResponseCycle: ("disconnected", "message_event"),
    WebSocketsSansIOProtocol: (
        "close_sent",
        "close_timeout",
        "conn",
        "curr_msg_data_type",
        "frames",
        "handshake_complete",
        "loop",
        "read_paused",
        "transport",
        "writable",
        "handle_cont",
        "handle_parser_exception",
        "handle_ping",
        "resume_writing",
        "run_asgi",
        "send",
        "send_receive_event_to_app",
    ),
}
"""What is built on here of uvicorn's own protocols, which promise nothing."""


def check_protocols(private: Mapping[type, Sequence[str]] = PRIVATE) -> None:
    """UserError where the uvicorn that is installed lacks some of it."""
    for protocol, names in private.items():
        known = {*dir(protocol), *protocol.__init__.__code__.co_names}
        if missing := [name for name in names if name not in known]:
            raise UserError(
                f"uvicorn {uvicorn.__version__} does not fit: its {protocol.__name__} has no {', '.join(missing)}; "
                "run: pip install 'steersman[live]'"
            )


check_protocols()
HERE = "127.0.0.1"
MOST_FRAGMENTS = 2**14
"""Fragments of one WebSocket message: empty ones have no bytes that would count."""
FAREWELL_S = 2.0
"""Seconds in which clients have to be gone once they were told."""


class Server(uvicorn.Server):
    """Says goodbye before it closes."""

    def __init__(self, live: Live):
        limits = live.limits
        config = uvicorn.Config(
            live.app,
            http=bounded(limits),
            ws=Answering,
            ws_max_size=limits.frame_bytes,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=int(FAREWELL_S) + 1,
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="error",
        )
        super().__init__(config)
        self.live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.live.end("the server was stopped")
        for _ in range(int(FAREWELL_S / 0.05)):
            if self.live.all_gone:
                break
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


class Answering(WebSocketsSansIOProtocol):
    """Takes an HTTP answer to a WebSocket for the end of it; uvicorn by itself reports that there was no answer.

    A connection that the app is done with ends soon, where uvicorn waits for ever for a client to take what is left.
    One that takes no answers to its pings is read no further until it does.
    """

    def handle_ping(self) -> None:
        super().handle_ping()
        if not self.writable.is_set():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._fail(1009, "too many fragments")

    def send_receive_event_to_app(self) -> None:
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:  # Uvicorn would report it with a traceback.
            self._fail(1007, "a text that is not UTF-8")
        else:
            super().send_receive_event_to_app()

    def _fail(self, code: int, why: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.fail(code, why)
            self.handle_parser_exception()

    async def send(self, message: Any) -> None:
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.loop.call_later(self.close_timeout, self.transport.abort)


def bounded(limits: Limits) -> type[H11Protocol]:
    """HTTP that waits only so long for the head of a request, and answers only so many connections with the app.

    uvicorn by itself waits for ever, and says of too many no more than that it is not available.
    """
    late, most = limits.arrival_s, limits.connections

    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        refused = Refused(f"there are {most} connections already", "close some, or come again later", 503)
        await JSONResponse(refused.json(), refused.status, {"Connection": "close"})(scope, receive, send)

    class Bounded(H11Protocol):
        waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.waiting = self.loop.call_later(late, self.give_up)
            if len(self.connections) > most:
                self.app = full
            if len(self.connections) > 2 * most:
                transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            waits = self.conn.their_state is h11.IDLE
            if self.waiting and not waits:
                self.waiting.cancel()
                self.waiting = None
            elif waits and not self.waiting:
                self.waiting = self.loop.call_later(late, self.give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.waiting:
                self.waiting.cancel()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """Ends the connection and the request that is in the making, which uvicorn would answer once more."""
            if self.cycle is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                super().send_400_response(msg)
            else:
                self.transport.close()

        def give_up(self) -> None:
            if not self.transport.is_closing():
                self.send_400_response(f"the head of a request did not come within {late:g} s; send it at once")

    return Bounded


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. UserError where it can't."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # Who comes early waits.
    except (OSError, OverflowError) as error:
        listening.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is taken; choose another with --port, or any that is free with --port 0"
            ) from None
        raise UserError(f"can't listen on {host} port {port} ({error}); choose others with --host and --port") from None
    return listening


def address(guard: Guard, token: str = "") -> str:
    """The address where a browser on this machine finds the page, with the server's token, or another in its place."""
    host = "127.0.0.1" if guard.host in EVERYWHERE else f"[{guard.host}]" if ":" in guard.host else guard.host
    return f"http://{host}:{guard.port}/?token={token or guard.token}"


def guarding(listening: socket.socket, host: str = HERE, origins: Sequence[str] = ()) -> Guard:
    """The guard of a server on a socket; the token is drawn anew every time."""
    found = tuple(origin(one) for one in origins)
    return Guard(host, listening.getsockname()[1], secrets.token_urlsafe(24), found)


def prepared(stage: Audience, guard: Guard, limits: Limits | None = None) -> Server:
    torch.set_num_threads(1)  # One step of a small network is quickest on one thread.
    return Server(Live(stage, guard, limits))


@contextmanager
def running(stage: Audience, limits: Limits | None = None) -> Iterator[Live]:
    """A server on a free port of this machine, in a thread, as long as the block lasts."""
    listening = bound(HERE, 0)
    server = prepared(stage, guarding(listening), limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="server", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    try:
        yield server.live
    finally:
        server.should_exit = True
        thread.join()
