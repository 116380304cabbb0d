"""Who may speak to a live server: checked of every request and every WebSocket, before anything else is done."""

import asyncio
import hmac
import ipaddress
import re
import secrets
import socket
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import UserError
from .limits import Refused

LOCAL = ("localhost", "127.0.0.1", "::1")
PORTS = {"http": 80, "https": 443}
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
"""Headers of every answer: nothing is loaded from elsewhere, nobody frames the page, its address leaks nowhere."""


HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@\\\s]+)(?::([0-9]{1,9}))?")
"""A host in lower case and its port. `urlsplit` takes what stands behind a number in brackets for nothing."""


def origin(address: str) -> str:
    """Scheme and host of an address, as browsers name a page's origin. UserError where it is none."""
    scheme, _, rest = address.lower().partition("://")
    host = HOST.fullmatch(rest.rstrip("/"))
    port = int(host[2] or PORTS.get(scheme, 0)) if host else 0
    if host is None or scheme not in PORTS or port >= 2**16:
        raise UserError(f"{address!r} is not an origin; give what browsers open, such as https://car.example:8443")
    return f"{scheme}://{host[1]}" + (f":{port}" if port != PORTS[scheme] else "")


@dataclass(frozen=True)
class Guard:
    """The hosts that a server answers to, and the token that every client has to show."""

    host: str
    port: int
    token: str
    origins: tuple[str, ...] = ()
    """Addresses by which it is also reached, through a proxy or a tunnel; as `origin` gives them."""
    _tickets: set[str] = field(default_factory=set)

    @property
    def cookie(self) -> str:
        """Cookies of one host are shared by its ports: each server has its own."""
        return f"steersman-{self.port}"

    def check(self, scope: Scope) -> None:
        """Refused where a request comes by another name, from another page, or without the token."""
        found: dict[str, list[str]] = {}
        for name, text in scope["headers"]:
            found.setdefault(name.decode("latin-1"), []).append(text.decode("latin-1"))
        hosts = found.get("host", [])
        host = hosts[0].lower() if len(hosts) == 1 else ""
        own = self.answers_to(host)
        if not own and host not in (address.partition("//")[2] for address in self.origins):
            do = "use the address that the command printed, or start the server with --origin"
            raise Refused("the Host header is not this server's", do, 403)
        pages = (*self.origins, f"http://{host}") if own else self.origins
        for address in found.get("origin", []):
            if address.lower() not in pages:
                do = "open this server's own page, or start the server with --origin"
                raise Refused("the request comes from another page", do, 403)
        if scope["path"] == "/" and scope.get("method") == "GET" and self._tickets:
            for ticket in _asked(scope):
                if ticket in self._tickets:
                    self._tickets.discard(ticket)
                    return
        if not any(self.knows(token) for token in self._shown(scope, found)):
            do = "open the address that the command printed, or send Authorization: Bearer TOKEN"
            raise Refused("the token is missing or wrong", do, 401)

    def answers_to(self, host: str) -> bool:
        """A name in a Host header. A page elsewhere can make a name of its own mean this machine, but no number."""
        found = HOST.fullmatch(host.lower())
        if found is None or int(found[2] or 80) != self.port:
            return False
        name = found[1].strip("[]")
        if self.host in EVERYWHERE:
            return name in LOCAL or name == socket.gethostname().lower() or _is_number(name)
        return name in LOCAL or name == self.host.lower()

    def is_secure(self, host: str) -> bool:
        """Whether a Host header is that of a proxy with TLS."""
        return f"https://{host.lower()}" in self.origins

    def ticket(self) -> str:
        """Opens the page once: it goes to a browser, by a file that only its user can read."""
        ticket = secrets.token_urlsafe(24)
        self._tickets.add(ticket)
        return ticket

    def knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    def _shown(self, scope: Scope, found: Mapping[str, list[str]]) -> Iterable[str]:
        """Every token that a request shows; in its address only where a browser has no other way."""
        for text in found.get("authorization", []):
            kind, _, token = text.partition(" ")
            if kind.lower() == "bearer":
                yield token.strip()
        for text in found.get("cookie", []):
            yield cookie_parser(text).get(self.cookie, "")
        if scope["type"] == "websocket" or scope["path"] == "/":
            yield from _asked(scope)


def _asked(scope: Scope) -> list[str]:
    """Tokens in the address of a request."""
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [])


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

    def __init__(self, app: ASGIApp, guard: Guard, late_s: float):
        self.app, self.guard, self.late_s = app, guard, late_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        lengths = [text for name, text in scope["headers"] if name in (b"content-length", b"transfer-encoding")]
        whole = all(length == b"0" for length in lengths)

        async def heard() -> Message:
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
            self._check(scope)
        except Refused as refused:
            # Of a WebSocket the status is always 403: there is no page that could ask for a token.
            status = 403 if scope["type"] == "websocket" else refused.status
            await JSONResponse(refused.json(), status)(scope, heard, headed)
            return
        await self.app(scope, heard, headed)

    def _check(self, scope: Scope) -> None:
        """What the guard itself fails at comes in as little as what it refuses."""
        try:
            self.guard.check(scope)
        except Refused:
            raise
        except Exception:
            traceback.print_exc()
            raise Refused("the server failed at this", "look at what it printed", 500) from None
