"""The app: its routes, the sessions of other programs, and the sockets of the pages that watch the stage."""

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..json_types import JsonObject
from ..processes import num_cores
from ..version import __version__
from . import api
from .guards import Guard, Guarded
from .limits import Bucket, Limits, Refused
from .sessions import Session, Sessions, idle, parsed
from .viewers import Audience, Viewer
from .words import Words

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
MOST_COMMAND = 10_000
"""Characters of a page's message."""
MOST_ASKED = 12 * api.MOST_TEXT + 100
"""Characters of what `/api/say` is sent: JSON may write any character as two escapes of six."""
SWEEP_S = 1.0
GONE = (WebSocketDisconnect, OSError)
"""What is raised when the other side is no longer there."""


@dataclass(eq=False)
class Inbox:
    """What a socket brought and was not yet looked at: the newest picture, or else a few messages in their order."""

    waiting: deque[Any] = field(default_factory=deque)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0

    MOST = 4

    async def put(self, item: Any, picture: bool = False) -> None:
        """A picture takes the place of one that waits, which is counted; others wait until there is room."""
        if picture and self.waiting and isinstance(self.waiting[-1][1], bytes):
            self.waiting[-1] = item
            self.dropped += 1
            return
        while len(self.waiting) >= self.MOST:
            self.room.clear()
            await self.room.wait()
        self.waiting.append(item)
        self.came.set()

    def end(self, item: Any) -> None:
        """Comes before all that waits."""
        self.waiting.appendleft(item)
        self.came.set()

    async def get(self) -> Any:
        while not self.waiting:
            self.came.clear()
            await self.came.wait()
        self.room.set()
        return self.waiting.popleft()


@dataclass(frozen=True)
class Ended:
    """Why a connection is ended by the server."""

    why: str
    code: int = 1001


class Live:
    """A model live. `app` is what an ASGI server runs."""

    def __init__(self, stage: Audience, guard: Guard, limits: Limits | None = None):
        self.stage, self.guard, self.limits = stage, guard, limits or Limits()
        self.sessions = Sessions(stage.stepping(), self.limits, num_cores(), stage.no_step, stage.rows)
        self.words = Words(stage.speaker, self.limits) if stage.speaker else None
        self._inboxes: set[Inbox] = set()
        self._pages, self._ending = 0, None
        routes = [Route(one.path, getattr(self, one.name), methods=[one.method]) for one in api.OPERATIONS]
        sockets = [WebSocketRoute(path, getattr(self, name)) for path, (name, *_) in api.SOCKETS.items()]
        handlers: Any = {Refused: _refused, HTTPException: _unknown, Exception: _failed}
        inner = Starlette(routes=[*routes, *sockets], lifespan=self._lifespan, exception_handlers=handlers)
        inner.router.redirect_slashes = False  # What is not there is not there.
        self.app = Guarded(inner, guard, self.limits.arrival_s)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.stage.start()
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            self.sessions.close()
            if self.words:
                self.words.close()
            await asyncio.to_thread(self.stage.stop)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_S, self.limits.idle_s / 2))
            self.sessions.sweep()

    def end(self, why: str) -> None:
        """Tells every client why, and lets it go."""
        self._ending = why
        for inbox in self._inboxes:
            inbox.end((0, Ended(why)))

    @property
    def all_gone(self) -> bool:
        """Whether no socket is open any more."""
        return not self._inboxes

    # HTTP

    async def page(self, request: Request) -> Response:
        if "token" not in request.query_params:
            return _file("index.html")
        answer = RedirectResponse("/", 303)
        # Lax: a Strict one would not go on to / with who follows a link. Pages elsewhere are kept out by their Origin.
        secure = self.guard.is_secure(request.headers["host"])
        answer.set_cookie(self.guard.cookie, self.guard.token, httponly=True, samesite="lax", secure=secure, path="/")
        return answer

    async def static(self, request: Request) -> Response:
        return _file(request.path_params["name"])

    async def about(self, request: Request) -> Response:
        return JSONResponse(
            {
                "steersman": __version__,
                "run": self.stage.run,
                "recipe": self.stage.recipe,
                **self.stage.about(),
                "limits": vars(self.limits),
                "sessions": len(self.sessions),
                "viewers": self._pages,
            }
        )

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(api.openapi(self.limits))

    async def asyncapi(self, request: Request) -> Response:
        return JSONResponse(api.asyncapi(self.limits))

    async def open_session(self, request: Request) -> Response:
        return JSONResponse({"session": self.sessions.open().id})

    async def step_session(self, request: Request) -> Response:
        session = self._session(request)
        body = await self._body(request)
        if request.headers.get("content-type", "").startswith("application/json"):
            body = body.decode(errors="replace")
        if session.busy.locked():
            raise Refused("this session is still at a step", "send the next one after its answer", 409)
        said = await session.step(body)
        return JSONResponse({"n": session.answered - 1, **said, "dropped": 0})

    async def reset_session(self, request: Request) -> Response:
        session = self._session(request)
        await session.reset()
        return JSONResponse({"session": session.id})

    async def end_session(self, request: Request) -> Response:
        session = self._session(request)
        self.sessions.end(session.id, "it was asked to")
        return JSONResponse({"session": session.id})

    async def say(self, request: Request) -> Response:
        body = await self._body(request)
        if self.words is None:
            raise Refused("this model says nothing about whole texts", "open a session: POST /api/sessions", 409)
        text = api.asked(parsed(body, MOST_ASKED), self.limits.characters)
        return JSONResponse(await self.words.say(text))

    def _session(self, request: Request) -> Session:
        session = self.sessions[request.path_params["id"]]
        session.bucket.take()
        return session

    async def _body(self, request: Request) -> bytes:
        """The whole body, which has to be there in time and no larger than allowed."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.arrival_s):
                async for part in request.stream():
                    size += len(part)
                    if size > self.limits.frame_bytes:
                        raise Refused(f"a body over {self.limits.frame_bytes} bytes", "send smaller pictures", 413)
                    parts.append(part)
        except TimeoutError:
            do = f"send it whole within {self.limits.arrival_s:g} s"
            raise Refused("the body did not come in time", do, 408) from None
        except ClientDisconnect:  # Nobody hears of it.
            raise Refused("the body broke off", "send it whole") from None
        return b"".join(parts)

    # WebSockets

    async def step_socket(self, socket: WebSocket) -> None:
        async with _denying(socket):
            with self.sessions.opened() as session:
                await self._serve(socket, lambda inbox: self._steps(socket, session, inbox))

    async def _steps(self, socket: WebSocket, session: Session, inbox: Inbox) -> None:
        """Answers each message of a program, until one side has enough."""
        reading = asyncio.create_task(_read(socket, inbox, session.bucket, drop=session.takes == "picture"))
        try:
            while True:
                try:
                    async with asyncio.timeout(self.limits.idle_s):
                        n, data = await inbox.get()
                except TimeoutError:
                    n, data = 0, Ended(idle(self.limits))
                if isinstance(data, Ended):
                    await self._goodbye(socket, data)
                    return
                answer = await self._answered(session, n, data, inbox)
                await self._say(socket, answer)
        finally:
            reading.cancel()

    async def _answered(self, session: Session, n: int, data: bytes | str, inbox: Inbox) -> JsonObject:
        try:
            return {"n": n, **await session.step(data), "dropped": inbox.dropped}
        except Refused as refused:
            return {"n": n, **refused.json()}

    async def stage_socket(self, socket: WebSocket) -> None:
        async with _denying(socket):
            if self._pages >= self.limits.viewers:
                raise Refused(f"{self.limits.viewers} pages watch already", "close one", 503)
            self._pages += 1
            try:
                await self._serve(socket, lambda inbox: self._watch(socket, inbox))
            finally:
                self._pages -= 1

    async def _watch(self, socket: WebSocket, inbox: Inbox) -> None:
        """Shows the stage to one page and brings its commands there."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        viewer = self.stage.subscribe(lambda: _wake(loop, woken))
        hearing = asyncio.create_task(self._hear(socket, viewer, inbox))
        hearing.add_done_callback(lambda _: woken.set())
        try:
            await self._say(socket, self.stage.hello())
            while not hearing.done():
                await woken.wait()
                woken.clear()
                events, moment = viewer.take()
                for event in events:
                    await self._say(socket, event)
                if moment is not None:
                    await self._say(socket, moment)
                if viewer.gone:
                    await self._goodbye(socket, Ended("this page took nothing for too long", 1008))
                    return
            await self._goodbye(socket, hearing.result())
        finally:
            hearing.cancel()
            self.stage.unsubscribe(viewer)

    async def _hear(self, socket: WebSocket, viewer: Viewer, inbox: Inbox) -> Ended:
        """Takes what a page sends; why that ends."""
        bucket = Bucket(self.limits.rate_hz)
        reading = asyncio.create_task(_read(socket, inbox, bucket, drop=False))
        try:
            while True:
                _, data = await inbox.get()
                if isinstance(data, Ended):
                    return data
                try:
                    self._obey(data, viewer)
                except Refused as refused:
                    viewer.tell({"type": "error", **refused.json()})
        finally:
            reading.cancel()

    def _obey(self, data: bytes | str, viewer: Viewer) -> None:
        if isinstance(data, bytes):
            self.stage.show.offer(data)
        else:
            self.stage.command(api.command(parsed(data, MOST_COMMAND)), viewer)

    async def _serve(self, socket: WebSocket, serve: Callable[[Inbox], Awaitable[None]]) -> None:
        """Runs what serves a socket, with an inbox that hears of the server's end."""
        if self._ending is not None:
            raise Refused(self._ending, "come again later", 503)
        inbox = Inbox()
        self._inboxes.add(inbox)
        try:
            await socket.accept()
            await serve(inbox)
        except GONE:
            pass
        except Exception:
            await self._goodbye(socket, Ended("the server failed at this", 1011))
            raise
        finally:
            self._inboxes.discard(inbox)

    async def _say(self, socket: WebSocket, message: JsonObject | bytes) -> None:
        """A client that takes nothing for too long is no longer there."""
        try:
            async with asyncio.timeout(self.limits.arrival_s):
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                else:
                    await socket.send_text(JSON.encode(message))
        except (RuntimeError, TimeoutError):  # The protocol may have closed it already, as for too large a message.
            raise WebSocketDisconnect from None

    async def _goodbye(self, socket: WebSocket, ended: Ended) -> None:
        with suppress(*GONE, RuntimeError):
            await self._say(socket, {"type": "goodbye", "why": ended.why})
            await socket.close(ended.code, ended.why[:100])


@asynccontextmanager
async def _denying(socket: WebSocket) -> AsyncIterator[None]:
    """What is refused before a socket is accepted is answered as HTTP."""
    try:
        yield
    except Refused as refused:
        await socket.send_denial_response(JSONResponse(refused.json(), refused.status))


async def _read(socket: WebSocket, inbox: Inbox, bucket: Bucket, drop: bool) -> None:
    """Brings what comes into the inbox, numbered; the last is an Ended. What is over the rate waits to be read."""
    try:
        for n in itertools.count():
            await bucket.wait()
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            data = message["text"] if data is None else data
            await inbox.put((n, data), picture=drop and isinstance(data, bytes))
    finally:
        inbox.end((0, Ended("the client left")))


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    with suppress(RuntimeError):  # The loop was closed.
        loop.call_soon_threadsafe(woken.set)


def _file(name: str) -> Response:
    """A file of the page: one of those that are there, and no path."""
    folder = files("steersman.live") / "static"
    kind = KINDS.get(name.rpartition(".")[2])
    known = {one.name for one in folder.iterdir()}
    if kind is None or name not in known:
        raise Refused("there is no such file", "open /", 404)
    return Response((folder / name).read_bytes(), media_type=kind)


async def _refused(request: Request, refused: Refused) -> Response:
    return JSONResponse(refused.json(), refused.status)


async def _unknown(request: Request, error: HTTPException) -> Response:
    refused = Refused(f"{request.method} is not known here", "see /api/openapi.json", error.status_code)
    return JSONResponse(refused.json(), error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed at this", "do": "look at what it printed"}, 500)
