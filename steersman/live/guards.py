"""Who may speak to a live server: checked of every request and every WebSocket, before anything else is done."""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.responses import JSONResponse

from .limits import Refused

LOCAL = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing is loaded from elsewhere, nobody frames the page, its address leaks nowhere."""


@dataclass(frozen=True)
class Guard:
    """The hosts that a server answers to, and the token that every client has to show."""

    host: str
    port: int
    token: str

    @property
    def cookie(self) -> str:
        """Cookies of one host are shared by its ports: each server has its own."""
        return f"steersman-{self.port}"

    def check(self, scope: Mapping[str, Any]) -> None:
        """Refused where a request comes by another name, from another page, or without the token."""
        found: dict[str, list[str]] = {}
        for name, text in scope["headers"]:
            found.setdefault(name.decode("latin-1"), []).append(text.decode("latin-1"))
        hosts = found.get("host", [])
        if len(hosts) != 1 or not self.answers_to(hosts[0]):
            raise Refused("the Host header is not this server's", "use the address that the command printed", 403)
        for origin in found.get("origin", []):
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or parts.netloc.lower() != hosts[0].lower():
                raise Refused("the request comes from another page", "open this server's own page", 403)
        if not any(self.knows(token) for token in self._shown(scope, found)):
            do = "open the address that the command printed, or send Authorization: Bearer TOKEN"
            raise Refused("the token is missing or wrong", do, 401)

    def answers_to(self, host: str) -> bool:
        """A name in a Host header. A page elsewhere can make a name of its own mean this machine, but no number."""
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname, parts.port or 80
        except ValueError:
            return False
        if port != self.port or parts.netloc != host or "@" in host or name is None:
            return False
        if self.host in EVERYWHERE:
            return name in LOCAL or name == socket.gethostname().lower() or _is_number(name)
        return name in LOCAL or name == self.host.lower()

    def knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    def _shown(self, scope: Mapping[str, Any], found: Mapping[str, list[str]]) -> Iterable[str]:
        """Every token that a request shows; in its address only where a browser has no other way."""
        for text in found.get("authorization", []):
            kind, _, token = text.partition(" ")
            if kind.lower() == "bearer":
                yield token.strip()
        for text in found.get("cookie", []):
            try:
                morsel = SimpleCookie(text).get(self.cookie)
            except CookieError:
                continue
            if morsel:
                yield morsel.value
        if scope["type"] == "websocket" or scope["path"] == "/":
            yield from parse_qs(scope["query_string"].decode("latin-1")).get("token", [])


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False


class Guarded:
    """An app behind its guard. What is refused is answered as HTTP, also where a WebSocket was asked for.

    An answer that refuses, or that does not wait for the request's body, is the last of its connection. The rest of
    the body is read past so that the answer arrives, but no longer than `late_s`, however it drips.
    """

    def __init__(self, app: Any, guard: Guard, late_s: float):
        self.app, self.guard, self.late_s = app, guard, late_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        whole = not any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])

        async def heard() -> Any:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def headed(message: Any) -> None:
            if message["type"] == "http.response.start":
                last = {"Connection": "close"} if message["status"] >= 400 or not whole else {}
                headers = [(name.lower().encode(), text.encode()) for name, text in (HEADERS | last).items()]
                message = message | {"headers": [*message.get("headers", []), *headers]}
            elif message["type"] == "http.response.body" and not whole and not message.get("more_body", False):
                await send(message | {"more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.late_s):
                        while not whole:
                            await heard()
                message = {"type": "http.response.body"}
            await send(message)

        try:
            self.guard.check(scope)
        except Refused as refused:
            # Of a WebSocket the status is always 403: there is no page that could ask for a token.
            status = 403 if scope["type"] == "websocket" else refused.status
            await JSONResponse(refused.json(), status)(scope, heard, headed)
            return
        await self.app(scope, heard, headed)
