"""A model live: who may come in, what each is told, and that nobody's state is another's."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small import small

from steersman.data.records import Stream
from steersman.errors import UserError
from steersman.evaluation.tasks import Estimate
from steersman.nn.cores import GRU, LSTM, Bidirectional
from steersman.nn.heads import Classification, NextSymbol, Regression
from steersman.nn.model import Network
from steersman.nn.pictures import Conv, Picture
from steersman.recipes.steer.task import EstimateSteering
from steersman.training.fit import fit

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")
httpx = pytest.importorskip("httpx")
from starlette.websockets import WebSocketDisconnect  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

import steersman as sm  # noqa: E402
from steersman.export.session import Stepping  # noqa: E402
from steersman.live import api, command  # noqa: E402
from steersman.live.app import Inbox  # noqa: E402
from steersman.live.client import Client  # noqa: E402
from steersman.live.guards import Guard, origin  # noqa: E402
from steersman.live.insight import Insight  # noqa: E402
from steersman.live.limits import Bucket, Limits, Refused  # noqa: E402
from steersman.live.panels import main_target, panels, usual  # noqa: E402
from steersman.live.pictures import cut, decode, fitted, jpeg, png  # noqa: E402
from steersman.live.serve import address, bound, check_protocols, running  # noqa: E402
from steersman.live.sessions import Sessions, StepSession  # noqa: E402
from steersman.live.shows import Logged, Source  # noqa: E402
from steersman.live.stage import MOST_COMMANDS, Stage, spoken, staged  # noqa: E402
from steersman.live.viewers import MOST_EVENTS, Audience, Moment, Texts, Viewer  # noqa: E402

quiet = {"say": lambda text: None}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A driver of the synthetic road."""
    recipe = small("steer")
    recipe = replace(recipe, training=replace(recipe.training, steps=20, warmup=5, validate_every=20))
    return fit("steer", recipe, tmp_path_factory.mktemp("live") / "run", **quiet)


@pytest.fixture(scope="module")
def held_out(run):
    """Records that were not trained on: their pictures, and what evaluation says of each."""
    records = run.records()["test"] + run.records()["validation"]
    model = run.model()
    said = model.predict(run.recipe.examples(model, records))
    return [(np.asarray(r["picture"].values), y) for r, y in zip(records, said, strict=True)]


@contextmanager
def served(run, source=None, **limits):
    limits = Limits(**({"rate_hz": 1e5} | limits))
    with running(staged(run, source or Source(), limits, **quiet), limits) as live:
        yield live


@pytest.fixture(scope="module")
def live(run):
    with served(run) as live:
        yield live


def http(live, **headers) -> "httpx.Client":
    headers = {"Authorization": f"Bearer {live.guard.token}"} | headers
    return httpx.Client(base_url=f"http://127.0.0.1:{live.guard.port}", headers=headers, trust_env=False)


def ws(live, path="/api/step", token=None, **headers):
    headers = {"Authorization": f"Bearer {live.guard.token if token is None else token}"} | headers
    where = f"ws://127.0.0.1:{live.guard.port}{path}"
    return connect(where, additional_headers=headers, compression=None, proxy=None, close_timeout=1)


def client(live) -> Client:
    return Client(address(live.guard))


def moment(message: bytes) -> tuple[dict, bytes, bytes]:
    """A binary message of the stage, held against the table."""
    (length,) = struct.unpack("<I", message[:4])
    header = json.loads(message[4 : 4 + length])
    assert api.check(header, api.FROM_STAGE["moment"]) is None
    rest = message[4 + length :]
    assert len(rest) == header["picture_bytes"] + header["look_bytes"]
    return header, rest[: header["picture_bytes"]], rest[header["picture_bytes"] :]


def told(message: str) -> dict:
    """A text message of the stage, held against the table."""
    event = json.loads(message)
    assert api.check(event, api.FROM_STAGE[event["type"]]) is None
    return event


# What is said


def test_a_whole_held_out_drive_through_the_server_equals_evaluation(live, held_out):
    pictures, said = held_out[0]
    with client(live) as steps:
        answers = [steps.step(picture) for picture in pictures]
    assert [a["n"] for a in answers] == list(range(len(pictures)))
    assert all(a["dropped"] == 0 and a["latency_ms"] > 0 for a in answers)
    np.testing.assert_allclose([a["prediction"]["steer"] for a in answers], said[:, 0], atol=1e-4)


def test_sessions_at_once_are_not_mixed(live, held_out):
    """Each steps through a drive of its own, in turn with all others; every answer is that of its own drive."""
    drives = [held_out[i % len(held_out)] for i in range(6)]
    found = [[] for _ in drives]

    def go(i: int) -> None:
        with client(live) as steps:
            found[i] = [steps.step(picture)["prediction"]["steer"] for picture in drives[i][0]]

    threads = [threading.Thread(target=go, args=(i,)) for i in range(len(drives))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (_, said), got in zip(drives, found, strict=True):
        np.testing.assert_allclose(got, said[:, 0], atol=1e-4)


def test_a_session_over_http_is_a_sequence_too(live, held_out):
    pictures, said = held_out[0]
    with http(live) as web:
        number = web.post("/api/sessions").json()["session"]
        step = partial(web.post, f"/api/sessions/{number}/step")
        got = [step(content=png(p)).json() for p in pictures[:5]]
        np.testing.assert_allclose([g["prediction"]["steer"] for g in got], said[:5, 0], atol=1e-4)
        assert not any(api.check(g, api.PREDICTION) for g in got)
        web.post(f"/api/sessions/{number}/reset")
        assert step(content=png(pictures[0])).json()["prediction"] == got[0]["prediction"]
        assert web.delete(f"/api/sessions/{number}").status_code == 200
        gone = step(content=png(pictures[0]))
        assert gone.status_code == 410
        assert api.check(gone.json(), api.FAULT) is None
        assert web.post("/api/sessions/none/step").status_code == 404


@pytest.mark.parametrize("address", ["ftp://127.0.0.1:1", "127.0.0.1:8765", "http://", "/?token=x", ""])
def test_what_is_no_address_of_a_server_is_said(address):
    with pytest.raises(UserError, match="not the address of a live server"):
        Client(address, "secret")


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_to_a_server_with_tls_no_token_goes_in_clear(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        heard = []

        def hear():
            with listening.accept()[0] as one:
                heard.append(one.recv(1000))

        thread = threading.Thread(target=hear)
        thread.start()
        with pytest.raises(UserError, match="no live server answers"):
            Client(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/?token=secret", timeout_s=5)
        thread.join()
    assert heard[0][0] == 0x16  # A handshake of TLS.
    assert b"secret" not in heard[0]


def test_after_a_late_answer_a_client_is_closed(run, held_out, monkeypatch):
    with served(run) as live:
        picture = held_out[0][0][0]
        with client(live) as steps:
            steps.step(picture)
            steps._timeout_s = 0.2
            monkeypatch.setattr(StepSession, "_step", lambda self, data: time.sleep(0.5) or {"prediction": {}})
            with pytest.raises(UserError, match="said nothing"):
                steps.step(picture)
            with pytest.raises(UserError, match="closed the session: it was over; open another"):
                steps.step(picture)


def test_reset_begins_anew(live, held_out):
    (first, second, *_), _ = held_out[0]
    with client(live) as steps:
        once = [steps.step(first)["prediction"], steps.step(second)["prediction"]]
        steps.reset()
        assert [steps.step(first)["prediction"], steps.step(second)["prediction"]] == once


def test_every_answer_of_a_session_is_one_that_is_described_and_says_which_message_it_is_of(live, held_out):
    sent = [png(held_out[0][0][0]), '{"type": "reset"}', '{"type": "reset", "also": 1}', '{"x": 1}', '{"type": "step"}']
    with ws(live) as socket, http(live) as web:
        answers = []
        for message in sent:
            socket.send(message)
            answers.append(json.loads(socket.recv(timeout=5)))
        kinds = [[kind for kind, schema in api.FROM_STEP.items() if api.check(a, schema) is None] for a in answers]
        assert kinds == [["prediction"], ["reset"], ["error"], ["error"], ["error"]]
        assert [a["n"] for a in answers] == list(range(len(sent)))
        number = web.post("/api/sessions").json()["session"]
        for message, schema in zip(sent, [*api.STEPPED["oneOf"][:2], *[api.FAULT] * 3], strict=True):
            kind = "image/png" if isinstance(message, bytes) else "application/json"
            answer = web.post(f"/api/sessions/{number}/step", content=message, headers={"Content-Type": kind})
            assert api.check(answer.json(), schema) is None


def test_a_picture_of_another_size_is_cut_and_shrunk_by_area_as_pictures_are_prepared():
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = 200
    assert (fitted(wide, (20, 20, 3)) == 200).all()
    assert cut(wide.transpose(1, 0, 2), (20, 20, 3)).shape == (40, 40, 3)
    wide.setflags(write=False)  # As a decoded one is; torch would warn of it.
    assert (fitted(wide, (20, 20, 3)) == 200).all()
    same = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    assert fitted(same, (20, 20, 3)) is same


# Who may come in

WRONG = [
    ({"Authorization": ""}, 401, "no token"),
    ({"Authorization": "Bearer wrong"}, 401, "a wrong token"),
    ({"Authorization": "Basic eHg6eHg="}, 401, "another kind of token"),
    ({"Authorization": "", "Cookie": "steersman-1=x"}, 401, "another cookie"),
    ({"Origin": "http://["}, 403, "what is no origin"),
    ({"Origin": "https://127.0.0.1"}, 403, "a page of another scheme"),
    ({"Origin": "http://evil.example"}, 403, "another page"),
    ({"Origin": "null"}, 403, "a page of no origin"),
    ({"Origin": "http://127.0.0.1:1"}, 403, "a page of another port"),
]


@pytest.mark.parametrize(("headers", "status", "what"), WRONG, ids=[what for *_, what in WRONG])
def test_every_route_and_socket_is_closed_to(live, headers, status, what):
    with http(live, **headers) as web:
        for one in (*api.OPERATIONS, replace(api.OPERATIONS[0], path="/nowhere")):
            answer = web.request(one.method, one.path.format(name="index.html", id="x"))
            assert answer.status_code == status, one
            assert api.check(answer.json(), api.FAULT) is None
    for path in api.SOCKETS:
        with pytest.raises(InvalidStatus) as refused, ws(live, path, **headers):
            pass
        assert refused.value.response.status_code == 403
        assert api.check(json.loads(refused.value.response.body), api.FAULT) is None


@pytest.mark.parametrize("path", api.SOCKETS)
def test_a_name_that_was_bent_to_this_machine_is_refused_before_a_socket_opens(live, path):
    request = (
        f"GET {path}?token={live.guard.token} HTTP/1.1\r\nHost: evil.example:{live.guard.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert raw(live, request.encode()).startswith(b"HTTP/1.1 403")
    assert b" 403 " in raw(live, f"GET /api/about HTTP/1.1\r\nHost: evil.example:{live.guard.port}\r\n\r\n".encode())


def raw(live, data: bytes, timeout_s: float = 5.0) -> bytes:
    """What is answered to bytes; a connection that is left open ends it, too."""
    with socket.create_connection(("127.0.0.1", live.guard.port), timeout=timeout_s) as plain:
        plain.sendall(data)
        found = b""
        with suppress(TimeoutError, ConnectionError):
            while part := plain.recv(65536):
                found += part
                if b"\r\n\r\n" in found and b"}" in found:
                    break
        return found


HOSTS = [
    ("127.0.0.1", "127.0.0.1:9", True), ("127.0.0.1", "localhost:9", True), ("127.0.0.1", "LOCALHOST:9", True),
    ("127.0.0.1", "[::1]:9", True), ("127.0.0.1", "127.0.0.1:8", False), ("127.0.0.1", "127.0.0.1", False),
    ("127.0.0.1", "evil.example:9", False), ("127.0.0.1", "localhost.evil.example:9", False),
    ("127.0.0.1", "127.0.0.1:9@evil.example", False), ("127.0.0.1", "", False), ("127.0.0.1", "a:b:c", False),
    ("127.0.0.1", "192.168.1.5:9", False), ("192.168.1.5", "192.168.1.5:9", True),
    ("0.0.0.0", "192.168.1.5:9", True), ("0.0.0.0", "evil.example:9", False), ("::", "[fe80::1]:9", True),
    ("car.local", "car.local:9", True), ("car.local", "evil.local:9", False),
    *(("127.0.0.1", f"{name}:9", False) for name in ("[::1].evil.example", "[::1]x", "x[::1]", "[::1", "::1", "[]")),
    *(("127.0.0.1", f"127.0.0.1{tail}", False) for tail in (".evil.example:9", ":9x", ":+9", ":٩", ":9 ", "\t:9", ":")),
    ("::", "[::1].evil.example:9", False), ("0.0.0.0", "[fe80::1].evil.example:9", False),
]  # fmt: skip


@pytest.mark.parametrize(("host", "named", "well"), HOSTS)
def test_a_server_answers_to_its_own_names_only(host, named, well):
    assert Guard(host, 9, "t").answers_to(named) is well


OWN, PROXY, TUNNEL = "127.0.0.1:9", "https://car.example", "http://localhost:8000"
PAGES = [
    ("car.example", PROXY, True), (OWN, PROXY, True), ("CAR.example", "https://CAR.example", True),
    ("localhost:8000", TUNNEL, True), (OWN, "http://127.0.0.1:9", True), (OWN, None, True), ("car.example", None, True),
    ("car.example", "http://car.example", False), ("car.example", "http://127.0.0.1:9", False),
    ("car.example:9", PROXY, False), (OWN, "https://127.0.0.1:9", False), (OWN, "http://localhost:9", False),
    ("", PROXY, False), ("evil.example", PROXY, False), (OWN, "", False), ("localhost:8000", "http://[", False),
    ("car.example", "", False),
]  # fmt: skip


@pytest.mark.parametrize(("host", "page", "well"), PAGES)
def test_through_a_proxy_or_tunnel_it_answers_to_the_origins_that_it_was_told(host, page, well):
    guard = Guard("127.0.0.1", 9, "t", (PROXY, TUNNEL))
    headers = {"host": host, "authorization": "Bearer t"} | ({} if page is None else {"origin": page})
    scope = {"type": "http", "path": "/", "method": "GET", "query_string": b""}
    scope["headers"] = [(name.encode(), text.encode()) for name, text in headers.items()]
    with nullcontext() if well else pytest.raises(Refused):
        guard.check(scope)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("https://car.example", PROXY), ("HTTPS://Car.Example:443/", PROXY), (TUNNEL, TUNNEL),
        ("http://[::1]:80", "http://[::1]"), ("car.example", None), ("ftp://car.example", None), ("http://", None),
        ("http://[::1].evil.example", None), ("http://car:99999", None), ("http://car?x", None), ("http://car#x", None),
        ("http://[", None), ("http://car:x", None), ("http://u@car", None), ("http://car/page", None), ("", None),
    ],
)  # fmt: skip
def test_an_origin_is_what_a_browser_says_or_is_refused(address, found):
    with nullcontext() if found else pytest.raises(UserError, match="is not an origin"):
        assert origin(address) == found


@given(st.text(max_size=40))
def test_any_address_is_an_origin_or_is_refused(address):
    with suppress(UserError):
        assert origin(origin(address)) == origin(address)


def test_an_odd_cookie_of_another_program_locks_nobody_out(live):
    with http(live, Authorization="", Cookie=f'a="{{[]}}; b@=@; {live.guard.cookie}={live.guard.token}; c') as web:
        assert web.get("/api/about").status_code == 200


def test_what_the_guard_fails_at_is_answered_with_all_headers(run, monkeypatch, capsys):
    def fail(*_):
        raise ZeroDivisionError

    with served(run) as live, http(live) as web:
        monkeypatch.setattr(Guard, "check", fail)
        answer = web.get("/api/about")
        with pytest.raises(InvalidStatus), ws(live):
            pass
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")
    assert api.check(answer.json(), api.FAULT) is None
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_ticket_opens_the_page_once(live):
    ticket = live.guard.ticket()
    with httpx.Client(base_url=f"http://127.0.0.1:{live.guard.port}", trust_env=False) as web:
        assert web.get(f"/api/about?token={ticket}").status_code == 401
        assert web.head(f"/?token={ticket}").status_code == 401
        first = web.get(f"/?token={ticket}")
        assert (first.status_code, ticket in first.headers["set-cookie"]) == (303, False)
        assert web.get("/api/about").status_code == 200
        web.cookies.clear()
        assert web.get(f"/?token={ticket}").status_code == 401


@given(st.text(max_size=40))
def test_no_text_is_a_host_by_chance(text):
    assert Guard("127.0.0.1", 9, "t").answers_to(text) == (text.lower() in ("127.0.0.1:9", "localhost:9", "[::1]:9"))


def test_the_address_keeps_its_token_in_a_cookie_and_leads_to_the_page(live):
    with httpx.Client(base_url=f"http://127.0.0.1:{live.guard.port}", trust_env=False) as web:
        first = web.get(address(live.guard))
        assert (first.status_code, first.headers["location"]) == (303, "/")
        assert {"httponly", "samesite=lax"} <= set(first.headers["set-cookie"].lower().split("; "))
        page = web.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert web.get("/api/about").status_code == 200
        web.cookies.clear()
        assert web.get(f"/api/about?token={live.guard.token}").status_code == 401


def test_files_are_those_of_the_page_and_no_others(live):
    with http(live) as web:
        for name in (
            "live.mjs/",
            "app.py",
            "..%2fapp.py",
            "%2e%2e%2fapp.py",
            "/etc/passwd",
            "%00",
            "index.html%00.mjs",
        ):
            answer = web.get(f"/static/{name}")
            assert answer.status_code == 404, name
            assert "/" not in answer.json()["error"]


# Limits


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be so large."""
    from zlib import compress, crc32

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = compress(bytes(2**20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_picture_too_large_is_refused_by_its_header_and_never_decoded(live, monkeypatch):
    def never(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "convert", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(Refused, match="over 1000 pixels"):
        decode(bomb(50_000, 50_000), 1000)
    with client(live) as steps, pytest.raises(UserError, match="pixels"):
        steps.step(bomb(60_000, 60_000))


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", bomb(10, 10)[:40], b"GIF89a" + bytes(50)])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(Refused, match="not a whole picture"):
        decode(data, 10**6)


def test_a_cut_jpeg_is_refused_and_a_grey_one_is_taken():
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    with pytest.raises(Refused):
        decode(jpeg(picture)[:-200], 10**6)
    file = io.BytesIO()
    Image.fromarray(picture[..., 0]).save(file, "PNG")
    assert (decode(file.getvalue(), 10**6) == picture[..., :1]).all()


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "no size": (CHUNKED + b"3\r\nabc\r\n", b"-1\r\nx\r\n"), "too large a size": (CHUNKED, b"f" * 30 + b"\r\n"),
    "at once": (b"", CHUNKED + b"ZZ\r\n"), "broken off": (b"Content-Length: 9\r\n\r\n", b"abc"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/api/say", "/api/sessions", "/nope"])
@pytest.mark.parametrize("token", ["", "right"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_request_is_answered_and_reported_as_no_fault_of_the_server(live, caplog, how, token, path):
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{live.guard.port}\r\n"
    head += f"Authorization: Bearer {live.guard.token}\r\n" if token else ""
    with socket.create_connection(("127.0.0.1", live.guard.port), timeout=5) as plain, suppress(ConnectionError):
        for part in (head.encode() + BROKEN[how][0], BROKEN[how][1]):
            plain.sendall(part)
            time.sleep(0.01)
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(65536):
            pass
    assert not [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


@contextmanager
def plain_socket(live, token: str):
    """A WebSocket that is no more than a connection."""
    with socket.socket() as plain:
        plain.settimeout(0.5)
        plain.connect(("127.0.0.1", live.guard.port))
        head = f"GET /api/step HTTP/1.1\r\nHost: 127.0.0.1:{live.guard.port}\r\nAuthorization: Bearer {token}\r\n"
        head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        plain.sendall(f"{head}Sec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
        yield plain


def frame(first: int, data: bytes = b"") -> bytes:
    """A frame with a mask of zeros."""
    return bytes((first, 0x80 | len(data))) + bytes(4) + data


@pytest.mark.parametrize("token", ["", "right"])
@pytest.mark.parametrize(
    "sent", [frame(0x81, b"\xff\xfe"), frame(0x81, b"{}"), frame(0x01, b"\xff") + frame(0x80, b"\xfe")]
)
def test_a_frame_that_can_not_be_read_is_reported_as_no_fault_of_the_server(live, caplog, token, sent):
    with plain_socket(live, live.guard.token if token else "x") as plain, suppress(ConnectionError, TimeoutError):
        plain.sendall(sent)
        while plain.recv(65536):
            pass
    assert not [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


def test_who_takes_no_answers_to_pings_is_read_no_further(live, held_out):
    ping, sent, got = frame(0x89, b"p" * 125), 0, 0
    pings = ping * 10_000
    with plain_socket(live, live.guard.token) as plain:
        assert b" 101 " in plain.recv(4096)
        with suppress(TimeoutError):
            while sent < 2**26:
                sent += plain.send(pings[sent % len(ping) :])
        assert sent < 2**25  # What stands in the buffers of the two sockets.
        with client(live) as steps:
            assert "prediction" in steps.step(held_out[0][0][0])
        plain.settimeout(5)
        while got < sent // len(ping) * 127:  # Once they are taken it is read on.
            got += len(plain.recv(2**20))


def test_a_message_of_fragments_without_end_is_ended(live):
    with ws(live) as raw:
        raw.socket.sendall(frame(0x02, b"x") + frame(0x00) * (2**14 + 1))
        with pytest.raises(ConnectionClosed) as ended:
            raw.recv(10)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1009


def test_over_a_limit_each_is_told_which(run, held_out):
    picture = png(held_out[0][0][0])
    with served(run, sessions=1, viewers=1, frame_bytes=20_000, idle_s=0.6, arrival_s=0.4) as live, http(live) as web:
        with client(live), pytest.raises(UserError, match="1 sessions are open already"):
            client(live)
        with ws(live, "/api/stage") as page:
            told(page.recv())
            with pytest.raises(InvalidStatus) as refused, ws(live, "/api/stage"):
                pass
            assert "watch already" in json.loads(refused.value.response.body)["error"]
        number = web.post("/api/sessions").json()["session"]
        assert web.post(f"/api/sessions/{number}/step", content=bytes(20_001)).status_code == 413
        assert web.post(f"/api/sessions/{number}/step", content=picture).status_code == 200
        time.sleep(1.3)
        late = web.post(f"/api/sessions/{number}/step", content=picture)
        assert (late.status_code, "idle" in late.json()["error"]) == (410, True)
        with ws(live) as idle:
            assert json.loads(idle.recv(timeout=5)) == {"type": "goodbye", "why": "idle for over 0.6 s"}
        with ws(live) as large:
            large.send(bytes(30_000))
            with pytest.raises(ConnectionClosed) as closed:
                large.recv(timeout=5)
            assert closed.value.rcvd.code == 1009
        # A head that never ends, a body that never comes.
        assert b"did not come within" in raw(live, b"GET / HTTP/1.1\r\nHost: ")
        head = f"POST /api/sessions/x/step HTTP/1.1\r\nHost: 127.0.0.1:{live.guard.port}\r\nContent-Length: 9\r\n"
        number = web.post("/api/sessions").json()["session"]
        head = head.replace("/x/", f"/{number}/") + f"Authorization: Bearer {live.guard.token}\r\n\r\n1"
        assert raw(live, head.encode()).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("token", [False, True], ids=["without the token", "with it"])
@pytest.mark.parametrize("path", ["/api/sessions", "/nowhere"])
def test_a_body_that_drips_on_after_its_answer_ends_its_connection(run, token, path):
    with served(run, arrival_s=0.3) as live:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{live.guard.port}\r\nContent-Length: 100000\r\n"
        head += f"Authorization: Bearer {live.guard.token}\r\n" * token
        found = b""
        with socket.create_connection(("127.0.0.1", live.guard.port), timeout=5) as plain:
            plain.sendall(head.encode() + b"\r\n")
            with suppress(ConnectionError):
                for _ in range(100):
                    plain.sendall(b"x")
                    time.sleep(0.05)
                pytest.fail("the connection is still open")
            with suppress(ConnectionError):
                found = plain.recv(65536)
        assert not found or b"connection: close" in found.lower()


def test_a_refusal_of_a_large_body_arrives_whole_and_ends_the_connection(live):
    with http(live, Authorization="") as web:
        answer = web.post("/api/sessions", content=bytes(3_000_000))
    with http(live) as web:
        assert "connection" not in web.post("/api/sessions").headers
    assert (answer.status_code, answer.headers["connection"]) == (401, "close")
    assert api.check(answer.json(), api.FAULT) is None


def test_over_the_rate_a_socket_waits_and_http_is_refused(run, held_out):
    pictures, said = held_out[0]
    with served(run, rate_hz=10.0) as live:
        with client(live) as hasty:
            answers = [hasty.step(picture) for picture in pictures[:14]]
        assert [a["n"] for a in answers] == list(range(14))
        np.testing.assert_allclose([a["prediction"]["steer"] for a in answers], said[:14, 0], atol=1e-4)
        with http(live) as web:
            number = web.post("/api/sessions").json()["session"]
            data = png(pictures[0])
            while (late := web.post(f"/api/sessions/{number}/step", content=data)).status_code == 200:
                pass
        assert (late.status_code, "over 10 messages a second" in late.json()["error"]) == (429, True)


def test_the_sweep_leaves_a_session_to_its_socket(run):
    sessions = Sessions(Stepping(run.model()), Limits(idle_s=0.01, sessions=2), 1)
    over_http = sessions.open()
    with sessions.opened():
        with pytest.raises(Refused, match="2 sessions"):
            sessions.open()
        time.sleep(0.05)
        sessions.sweep()
        assert len(sessions) == 1
        with pytest.raises(Refused, match="idle"):
            sessions[over_http.id]
    assert len(sessions) == 0


def test_a_client_that_takes_no_answer_is_given_up(run):
    class Stuck:
        async def send_text(self, text):
            await asyncio.sleep(60)

    with served(run, arrival_s=0.1) as live, pytest.raises(WebSocketDisconnect):
        asyncio.run(live._say(Stuck(), {"type": "error"}))


def test_over_so_many_connections_the_next_is_told(run):
    with served(run, connections=3) as live, http(live) as web:
        assert web.get("/api/about").status_code == 200
        idle = [socket.create_connection(("127.0.0.1", live.guard.port)) for _ in range(3)]
        with http(live) as another:
            answer = another.get("/api/about")
        assert (answer.status_code, "3 connections" in answer.json()["error"]) == (503, True)
        for one in idle:
            one.close()
        assert web.get("/api/about").status_code == 200


def test_what_is_no_number_is_said_in_words(run, held_out):
    model = run.model()
    model.head.linear.bias.data.fill_(float("nan"))
    stage = Stage("run", "steer", model, Logged(run.records()["test"], "picture", ("steer",), run.raw), **quiet)
    with running(stage) as live:
        with client(live) as steps, pytest.raises(UserError, match="not a finite number"):
            steps.step(held_out[0][0][0])
        with ws(live, "/api/stage") as page:
            told(page.recv())
            events, _ = watched(page, 1, lambda e: e["type"] == "paused")
            assert [e["type"] for e in events] == ["error", "paused"]


def test_a_show_that_breaks_is_told_to_all_without_a_path_and_the_sessions_go_on(run, held_out):
    printed = []

    class Broken(Logged):
        def shot(self):
            raise UserError("/secret/frame.jpg can't be decoded")

    show = Broken(run.records()["test"], "picture", ("steer",), run.raw)
    with running(Stage("run", "steer", run.model(), show, say=printed.append)) as live:
        for _ in range(2):  # Who comes later is told, too.
            with ws(live, "/api/stage") as page:
                told(page.recv())
                assert told(page.recv(timeout=5))["error"] == "this can't be shown"
        with client(live) as steps:
            assert steps.step(held_out[0][0][0])["n"] == 0
    assert printed == ["/secret/frame.jpg can't be decoded"]


def test_a_command_that_fails_is_said_and_refused_and_the_show_goes_on(run):
    printed = []

    class Stubborn(Logged):
        def restart(self):
            raise PermissionError("/secret/runs")

    show = Stubborn(run.records()["test"], "picture", ("steer",), run.raw)
    with running(Stage("run", "steer", run.model(), show, say=printed.append)) as live, ws(live, "/api/stage") as page:
        told(page.recv())
        page.send(json.dumps({"type": "restart"}))
        events, _ = watched(page, 100, lambda e: e["type"] == "error")
        assert events[-1]["error"] == "this can't be shown"
        watched(page, 5)
    assert "PermissionError: /secret/runs" in printed[0]


def test_a_show_that_broke_or_stands_takes_no_more_commands(run):
    stage = staged(run, Source(), Limits(), **quiet)
    for _ in range(MOST_COMMANDS):
        stage.command({"type": "restart"})
    with pytest.raises(Refused, match=f"{MOST_COMMANDS} commands wait"):
        stage.command({"type": "restart"})
    stage._fault = {"type": "error"}
    with pytest.raises(Refused, match="can't be shown"):
        stage.command({"type": "restart"})


def test_a_bucket_keeps_its_rate():
    now = [0.0]
    bucket, taken = Bucket(10.0, lambda: now[0]), 0
    for _ in range(1000):
        now[0] += 0.01
        with suppress(Refused):
            bucket.take()
            taken += 1
    assert taken == pytest.approx(110, abs=2)  # Ten seconds at ten a second, and the ten that it began with.


async def _newest() -> tuple[list, int]:
    inbox = Inbox()
    for n in range(5):
        await inbox.put((n, b"picture"), picture=True)
    await inbox.put((5, "reset"))
    await inbox.put((6, b"picture"), picture=True)
    return [await inbox.get() for _ in range(3)], inbox.dropped


def test_of_pictures_that_wait_the_newest_counts_and_the_others_are_counted():
    assert asyncio.run(_newest()) == ([(4, b"picture"), (5, "reset"), (6, b"picture")], 4)


def test_a_slow_reader_gets_answers_for_the_newest_pictures(live, held_out):
    picture = png(held_out[0][0][0])
    with ws(live) as hasty:
        for _ in range(300):
            hasty.send(picture)
        answers = []
        while not answers or answers[-1]["n"] < 299:
            answers.append(json.loads(hasty.recv(timeout=5)))
    assert answers[-1]["dropped"] + len(answers) == 300
    assert [a["n"] for a in answers] == sorted({a["n"] for a in answers})


# The stage


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    from steersman.worlds.film import DriveVideo

    file = tmp_path_factory.mktemp("film") / "film.mp4"
    with DriveVideo(file, fps=20) as video:
        for step in range(12):
            shot = np.full((24, 32, 3), 20 * step, np.uint8)
            video.add(shot, shot, {"steer": 0.1}, None, {})
    return file


def watched(page, num: int, until=lambda event: False) -> tuple[list[dict], list[dict]]:
    """Some moments, and the events that came between."""
    events, moments = [], []
    while len(moments) < num and not any(until(event) for event in events):
        message = page.recv(timeout=10)
        if isinstance(message, str):
            events.append(told(message))
        else:
            header, picture, look = moment(message)
            assert not picture or Image.open(io.BytesIO(picture)).format == "JPEG"
            assert not look or Image.open(io.BytesIO(look)).mode == "L"
            moments.append(header | {"looked": bool(look)})
    return events, moments


def test_a_log_is_shown_at_its_own_rate_and_says_what_evaluation_says(live, run, held_out):
    _, said = held_out[0]
    with ws(live, "/api/stage") as page:
        hello = told(page.recv())
        assert (hello["source"], hello["rate_hz"], hello["wheel"]) == ("log", pytest.approx(10), False)
        page.send(json.dumps({"type": "record", "name": hello["records"][0]}))
        page.send(json.dumps({"type": "restart"}))
        _, moments = watched(page, 14)
        start = next(i for i, m in enumerate(moments) if m["time_s"] == 0.0)
        for m in moments[start:]:
            step = round(m["time_s"] * hello["rate_hz"])
            assert m["prediction"]["steer"] == pytest.approx(said[step, 0], abs=1e-4)
        assert all(m["truth"] for m in moments)
        assert any(m["gates"] for m in moments)
        assert any(m["looked"] for m in moments)
        (shown,) = next(m["gates"] for m in moments if m["gates"])
        assert [len(units) for units in shown] == [hello["belts"][0]["units"]] * len(hello["belts"][0]["gates"])


def test_where_a_log_has_no_number_the_truth_is_null(run):
    (record, *_) = run.records()["test"]
    angle = np.asarray(record["steer"].values).copy()
    angle[::2] = np.nan
    record = replace(record, streams={**record.streams, "steer": Stream(angle, record["steer"].time_s)})
    show = Logged([record], "picture", ("steer",), run.raw)
    with running(Stage("run", "steer", run.model(), show, **quiet)) as live, ws(live, "/api/stage") as page:
        told(page.recv())
        _, moments = watched(page, 4)
    assert {m["truth"]["steer"] is None for m in moments} == {True, False}
    with pytest.raises(ValueError, match="JSON"):
        Moment({"dropped": 0, "speed_mps": float("nan")}, b"", b"").message(0)


def test_commands_are_obeyed_or_refused_in_words(live):
    with ws(live, "/api/stage") as page:
        told(page.recv())
        for message, event in (
            ({"type": "pause", "paused": True}, "paused"),
            ({"type": "pause", "paused": False}, "paused"),
            ({"type": "learn"}, "error"),
            ({"type": "wheel", "steer": 2, "gas": 0, "brake": 0}, "error"),
            ({"type": "record", "name": "none"}, "error"),
            ({"type": "none"}, "error"),
        ):
            page.send(json.dumps(message))
            events, _ = watched(page, 100, lambda e, event=event: e["type"] == event)
            assert events[-1]["type"] == event
        page.send(b"a picture that nobody asked for")
        events, _ = watched(page, 100, lambda e: e["type"] == "error")
        assert "camera" in events[-1]["error"]


def test_the_simulator_is_driven_and_a_reload_goes_on_where_it_is():
    pytest.importorskip("Box2D")
    from steersman.training.run import Run, find

    with served(Run.open(find("steer"))) as live:
        with ws(live, "/api/stage") as page:
            told(page.recv())
            _, moments = watched(page, 60)
        last = moments[-1]
        assert last["speed_mps"] == last["facts"]["speed_mps"] > 5
        assert last["lap"] is last["facts"]["lap"] is False
        assert last["driven"]["steer"] == pytest.approx(np.clip(last["prediction"]["steer"], -1, 1))
        assert set(last["truth"]) == set(last["prediction"])
        with ws(live, "/api/stage") as page:
            told(page.recv())
            _, (again, *_) = watched(page, 1)
            assert again["record"] == last["record"]
            assert 0 <= again["time_s"] - last["time_s"] < 5
            page.send(json.dumps({"type": "restart"}))
            _, moments = watched(page, 8)
            assert moments[-1]["record"] == f"track {Source.seed + 1}"


def test_a_video_and_a_camera_are_shown(run, film):
    with served(run, Source(video=str(film))) as live, ws(live, "/api/stage") as page:
        assert told(page.recv())["rate_hz"] == 20
        _, moments = watched(page, 14)
        assert [m["time_s"] for m in moments[:3]] == pytest.approx([0, 0.05, 0.1], abs=0.06)
        assert moments[-1]["record"] == "film.mp4"
    with served(run, Source(webcam=True)) as live, ws(live, "/api/stage") as page:
        assert told(page.recv())["source"] == "webcam"
        page.send(jpeg(np.full((48, 80, 3), 90, np.uint8)))
        _, (first,) = watched(page, 1)
        page.send(b"no picture")
        events, _ = watched(page, 1, lambda e: e["type"] == "error")
        assert "picture" in events[-1]["error"]
        assert first["record"] == "camera"


def test_other_weights_are_swapped_in_and_the_state_goes_on(run, held_out):
    pictures, said = held_out[0]
    stage = staged(run, Source(), Limits(), **quiet)
    got = []
    for step, picture in enumerate(pictures[:10]):
        if step == 5:
            stage.swap(run.model(), 2)
        got.append(stage._sequence.step(picture)["steer"])
    assert stage.version == 2
    np.testing.assert_allclose(got, said[:10, 0], atol=1e-4)


def test_a_viewer_that_is_slow_misses_moments_and_no_event(run):
    viewer = Viewer(lambda: None)
    for n in range(7):
        viewer.show(Moment({"n": n, "dropped": 1}, b"jpeg", b""))
        viewer.tell({"type": "swapped", "version": n})
    events, message = viewer.take()
    assert [e["version"] for e in events] == list(range(7))
    (length,) = struct.unpack("<I", message[:4])
    assert json.loads(message[4 : 4 + length]) | {"n": 6, "dropped": 7} == json.loads(message[4 : 4 + length])
    assert viewer.take() == ([], None)


def test_where_it_looked_lies_where_that_was_in_the_whole_picture():
    eye = Conv((4,), (3,), (2,), 8, pixels=Picture(10, 16, top=0.5))
    model = Network(eye, LSTM(4), Regression(("steer",))).build((40, 32, 3)).eval()
    raw = np.random.default_rng(0).integers(0, 256, (40, 32, 3)).astype(np.uint8)
    look = Insight(model).at(raw, Stepping(model).session().state).look()
    assert look.shape == (20, 16)
    assert not look[:10].any()
    assert look[10:].any()


def test_a_picture_is_prepared_once_for_gates_and_look(monkeypatch):
    model = Network(Conv((4,), (3,), (2,), 8, pixels=Picture(10, 16)), LSTM(4), Regression(("steer",)))
    model = model.build((40, 32, 3)).eval()
    raw, state, insight = np.full((40, 32, 3), 90, np.uint8), Stepping(model).session().state, Insight(model)
    prepare, times = model.encoder.prepare, []
    monkeypatch.setattr(model.encoder, "prepare", lambda raw: times.append(1) or prepare(raw))
    inside = insight.at(raw, state)
    assert inside.gates()
    assert inside.look() is not None
    assert len(times) == 1


def test_a_viewer_that_takes_nothing_is_let_go(run):
    viewer = Viewer(lambda: None)
    for n in range(10_000):
        viewer.tell({"type": "swapped", "version": n})
    events, _ = viewer.take()
    assert viewer.gone
    assert len(events) == MOST_EVENTS


# What is described


def test_what_is_described_is_what_is_there(live):
    with http(live) as web:
        described = web.get("/api/openapi.json").json()
        assert set(described["paths"]) == {one.path for one in api.OPERATIONS}
        sockets = web.get("/api/asyncapi.json").json()
        assert {c["address"] for c in sockets["channels"].values()} == set(api.SOCKETS)
        references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(sockets))
        for reference in references:
            found = sockets
            for part in reference.split("/"):
                found = found[part]
        assert api.check(web.get("/api/about").json(), api.ABOUT) is None


@pytest.mark.parametrize("name", ["rate_hz", "idle_s", "arrival_s"])
def test_every_limit_is_finite(name):
    for wrong in (float("inf"), float("nan"), 0.0):
        with pytest.raises(UserError, match=name):
            Limits(**{name: wrong})


def test_every_limit_stands_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
    assert all(f"`--limits.{name.replace('_', '-')}`" in page for name in vars(Limits()))


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        (1, api.COUNT, False), (-1, api.COUNT, True), (True, api.COUNT, True), (1.5, api.COUNT, True),
        (float("nan"), api.between(0, 1), True), (None, api.maybe(api.NUMBER), False), (None, api.NUMBER, True),
        ([1, 2], api.listed(api.NUMBER, 2), False), ([1], api.listed(api.NUMBER, 2), True),
        ({"a": 1}, api.record(a=api.NUMBER), False), ({}, api.record(a=api.NUMBER), True),
        ({"a": 1, "b": 2}, api.record(a=api.NUMBER), True), ({"a": "x"}, api.NAMED, True), ("x" * 2000, api.TEXT, True),
    ],
)  # fmt: skip
def test_a_message_is_held_against_its_schema(value, schema, wrong):
    assert (api.check(value, schema) is not None) is wrong


# Hostile clients

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KNOWN = st.fixed_dictionaries(
    {"type": st.sampled_from([*api.TO_STAGE, "reset", "hello"])},
    optional={name: VALUES for name in ("steer", "gas", "values", "paused", "name", "x")},
)
BAD = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda tail: b"\xff\xd8\xff" + tail),
    st.binary(max_size=60).map(lambda tail: b"\x89PNG\r\n\x1a\n" + tail),
    st.just(bomb(40_000, 40_000)),
    st.text(max_size=200),
    st.just("[" * 5000),
    st.just(json.dumps({"type": "wheel", "x": "long" * 5000})),
    VALUES.map(json.dumps),
    KNOWN.map(json.dumps),
)


@pytest.fixture(scope="module")
def bad_clients(live):
    with ws(live) as steps, ws(live, "/api/stage") as page:
        told(page.recv())
        yield steps, page


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=BAD)
def test_every_bad_message_is_answered_and_nobody_else_is_harmed(bad_clients, live, bad):
    steps, page = bad_clients
    steps.send(bad)
    answer = json.loads(steps.recv(timeout=10))
    assert any(api.check(answer, api.FROM_STEP[kind]) is None for kind in ("error", "reset")), answer
    assert str(Path.cwd().parent) not in json.dumps(answer)
    page.send(bad)
    page.send(json.dumps({"type": "none"}))  # An error for certain, after that of the bad one.
    events, _ = watched(page, 10_000, lambda e: e["type"] == "error" and "no such message" in e["error"])
    assert events[-1]["type"] == "error"


def test_after_all_that_a_session_still_says_what_evaluation_says(live, bad_clients, held_out):
    pictures, said = held_out[0]
    with client(live) as steps:
        got = [steps.step(picture)["prediction"]["steer"] for picture in pictures[:10]]
    np.testing.assert_allclose(got, said[:10, 0], atol=1e-4)


def test_a_model_of_text_is_stepped_by_characters(tmp_path):
    recipe = small("chars")
    recipe = replace(recipe, training=replace(recipe.training, steps=3, warmup=1, validate_every=3))
    text = fit("chars", recipe, tmp_path / "run", **quiet)
    with served(text) as live, client(live) as steps:
        stepping = Stepping(text.model())
        for said in ("t", "h", ord("e"), "\u2603"):
            number = said if isinstance(said, int) else ord(said)
            assert steps.step(said)["prediction"] == stepping.step(np.array([number]))
        for bad in ("too long", -1, [1, 2], 2**70, [], "", 1.5):
            with pytest.raises(UserError):
                steps.step(bad)
        with ws(live, "/api/stage") as page:
            hello = told(page.recv())
            assert (hello["size"], hello["panels"]) == ([0, 0], ["words", "say"])
            _, (first, *_) = watched(page, 1)
            assert first["picture_bytes"] == 0
            assert isinstance(first["said"]["next_character"], str)
        with http(live) as web:
            said, again = (web.post("/api/say", json={"text": "the "}).json() for _ in range(2))
            assert (len(said["text"]), said["score"], said["attention"]) == (300, None, None)
            assert said["text"] == again["text"]
            strange = web.post("/api/say", json={"text": "\u2603"})
            assert (strange.status_code, "never seen" in strange.json()["error"]) == (400, True)


def test_a_model_without_a_single_step_is_refused_with_the_reason(tmp_path):
    recipe = replace(small("echo"), core=Bidirectional(GRU(4)))
    recipe = replace(recipe, training=replace(recipe.training, steps=1, warmup=1, validate_every=1))
    both = fit("echo", recipe, tmp_path / "run", **quiet)
    with pytest.raises(UserError, match="end") as refused:
        staged(both, Source(), Limits(), **quiet)
    assert "run can't be shown live step by step: its BidirectionalCore is not causal" in str(refused.value)
    assert "export" not in str(refused.value)


# Panels, facts and words


def test_the_first_protocol_of_the_page_is_still_taken_and_sent():
    """What a client of before named by itself: the controls of a car, and three facts."""
    wheel = {"type": "wheel", "steer": 0.5, "gas": 0.25, "brake": 0}
    assert api.command(wheel) == {"type": "control", "values": {"steer": 0.5, "gas": 0.25, "brake": 0}}
    assert {name for name, schema in api.FROM_STAGE["moment"]["properties"].items() if schema.get("deprecated")} == set(
        api.FIRST
    )


CONTROLS = {"push": (-2.0, 2.0), "valve": (0.0, 1.0)}


@pytest.mark.parametrize(
    ("values", "well"),
    [
        ({"push": -2, "valve": 1}, True), ({"push": 0.5, "valve": 0}, True), ({"push": 2.1, "valve": 0}, False),
        ({"push": 0}, False), ({"push": 0, "valve": 0, "steer": 0}, False), ({"push": True, "valve": 0}, False),
    ],
)  # fmt: skip
def test_what_a_person_does_is_held_against_the_controls_of_the_world(values, well):
    with nullcontext() if well else pytest.raises(Refused, match="values"):
        api.controlled(values, CONTROLS)


def test_a_page_is_told_its_panels_and_what_is_said(live, run):
    with ws(live, "/api/stage") as page, http(live) as web:
        hello = told(page.recv())
        assert (hello["protocol"], hello["panels"], hello["controls"]) == (2, ["picture", "wheel", "chart"], {})
        assert web.get("/api/about").json()["panels"] == hello["panels"]
        _, (first,) = watched(page, 1)
    assert first["said"] == first["prediction"]
    assert first["facts"] == {}
    assert {name: first[name] for name in api.FIRST} == api.FIRST


@dataclass(frozen=True)
class Rudder(Estimate):
    """A ship's rudder, which an own recipe shows as a wheel."""

    unit: str = "fraction of hard over, positive to port"

    usual: ClassVar[bool] = False

    def ranges(self, targets):
        return {"rudder": (-1.0, 1.0)}

    def panels(self, targets):
        return {"wheel": "rudder"}


def test_panels_and_units_are_those_of_the_task_not_of_a_targets_name():
    show: Any = SimpleNamespace(size=(0, 0), world=None, source="log")
    ship = Regression(("course_rad", "rudder")).build(4)
    assert panels(Rudder(), ship, show) == ("wheel", "chart")
    assert main_target(Rudder(), ship) == "rudder"
    assert usual(Rudder(), ship)["rudder"] == [-1, 1]
    assert Rudder().units(("rudder", "course_rad")) == {
        "rudder": "fraction of hard over, positive to port",
        "course_rad": "radians",
    }
    named = Regression(("steer",)).build(4)
    assert panels(Estimate(), named, show) == ("chart",)
    assert Estimate().units(("steer",)) == {"steer": "as in the data"}
    assert Estimate().units(("velocity_radps",)) == {"velocity_radps": "radians a second"}
    assert panels(EstimateSteering(), named, show) == ("wheel", "chart")
    assert "positive to the left" in EstimateSteering().units(("pace", "yaw_radps"))["yaw_radps"]


def test_classes_and_symbols_are_said_by_their_names():
    assert Classification(("label",)).build(4).said({"label": 3.0}) == {"label": 3.0}
    head = NextSymbol(symbols="ab\n").build(4)
    assert [head.said({"next_character": ord(c)})["next_character"] for c in "ab\n\ufffd"] == [
        "a", "b", "\\n", "unknown",
    ]  # fmt: skip


class Reverser:
    """Says words the other way round; one that is told to waits, one that is told to fails."""

    def __init__(self):
        self.go_on = threading.Event()

    def say(self, text):
        if text == "wait":
            self.go_on.wait(10)
        if text == "fail":
            raise ZeroDivisionError("/secret/run")
        source = [*text.split(), "(end)"]
        target = [*reversed(text.split()), "(end)"]
        weights = np.eye(len(source))[::-1] if text != "nan" else np.full((1, 1), np.nan)
        score = float("nan") if text == "nan" else -1.25
        attention = {"source": source, "target": target, "weights": weights}
        return {"text": " ".join(target[:-1]), "pieces": target, "score": score, "attention": attention}


@contextmanager
def speaking(speaker=None, **limits):
    reason = "it reads a whole source before it says anything"
    audience = Audience("reverse", "translate", Texts(), speaker, reason)
    with running(audience, Limits(**limits)) as live:
        yield live


def test_a_model_of_whole_texts_says_something_about_one():
    with speaking(Reverser()) as live, http(live) as web:
        answer = web.post("/api/say", json={"text": "one two three"})
        assert answer.status_code == 200
        said = answer.json()
        assert api.check(said, api.SAID) is None
        assert (said["text"], said["score"]) == ("three two one", -1.25)
        assert said["attention"]["source"] == ["one", "two", "three", "(end)"]
        assert np.array(said["attention"]["weights"]).tolist() == np.eye(4)[::-1].tolist()
        assert web.post("/api/say", json={"text": " \n"}).json()["text"] == ""
        about = web.get("/api/about").json()
        assert api.check(about, api.ABOUT) is None
        assert (about["takes"], about["panels"]) == ("text", ["say"])
        refused = web.post("/api/sessions")
        assert (refused.status_code, refused.json()["do"]) == (409, "ask /api/say")
        assert "can't be run live a step at a time: it reads a whole source" in refused.json()["error"]
        with pytest.raises(UserError, match="a step at a time"):
            client(live)
        with ws(live, "/api/stage") as page:
            hello = told(page.recv())
            assert (hello["source"], hello["panels"], hello["wheel"]) == ("text", ["say"], False)
            page.send(json.dumps({"type": "restart"}))
            assert told(page.recv(timeout=5))["type"] == "error"


def test_of_attention_no_more_is_sent_than_can_be_seen():
    with speaking(Reverser()) as live, http(live) as web:
        assert web.post("/api/say", json={"text": "a " * 98}).json()["attention"]
        assert web.post("/api/say", json={"text": "a " * 120}).json()["attention"] is None


NO_TEXTS = [b"", b"[", b"[]", b'"x"', b"{}", b'{"text": 1}', b'{"text": "x", "beam": 9}', b'{"text": NaN}', b"\xff\xfe"]


@pytest.mark.parametrize("body", NO_TEXTS)
def test_what_is_no_text_is_refused(body):
    with speaking(Reverser()) as live, http(live) as web:
        answer = web.post("/api/say", content=body)
    assert answer.status_code == 400
    assert api.check(answer.json(), api.FAULT) is None


def test_texts_have_their_limits_and_each_is_told_which():
    speaker = Reverser()
    with speaking(speaker, characters=20, say_s=0.3, rate_hz=20) as live, http(live) as web:
        long = web.post("/api/say", json={"text": "x" * 21})
        assert (long.status_code, "over 20 characters" in long.json()["error"]) == (413, True)
        late = web.post("/api/say", json={"text": "wait"})
        assert (late.status_code, "within 0.3 s" in late.json()["error"]) == (503, True)
        busy = web.post("/api/say", json={"text": "x"})  # The thread still says what nobody waits for.
        assert (busy.status_code, "said already" in busy.json()["error"]) == (409, True)
        speaker.go_on.set()
        while (answer := web.post("/api/say", json={"text": "x"})).status_code == 409:
            time.sleep(0.1)
        assert answer.status_code == 200
        while (answer := web.post("/api/say", json={"text": "x"})).status_code == 200:
            pass
        assert (answer.status_code, "messages a second" in answer.json()["error"]) == (429, True)


def test_a_speaker_that_fails_is_answered_without_a_path_and_the_next_text_is_said(caplog):
    with speaking(Reverser()) as live, http(live) as web:
        failed = web.post("/api/say", json={"text": "fail"})
        assert (failed.status_code, "secret" in failed.text) == (500, False)
        nan = web.post("/api/say", json={"text": "nan"})
        assert (nan.status_code, "not a finite number" in nan.json()["error"]) == (500, True)
        assert web.post("/api/say", json={"text": "on it goes"}).json()["text"] == "goes it on"
    assert "ZeroDivisionError" in caplog.text


def test_rows_of_a_table_are_answered_as_the_whole_table_is(tmp_path):
    columns = {"time": np.arange(60.0), "a": np.sin(np.arange(60.0)), "b": np.cos(np.arange(60.0))}
    options = {"horizon": 2, "context": 4, "training": {"steps": 2, "validate_every": 2}}
    run = sm.fit("forecast", columns, folder=tmp_path / "run", say=lambda text: None, target="a", **options)
    whole = run.predict(columns)
    rows = [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    names = [name for name in whole if name.startswith("a +")]
    with served(run) as live:
        with ws(live) as socket:
            for row in rows[:20]:
                socket.send(json.dumps({"row": row}))
            answers = [json.loads(socket.recv(timeout=10)) for _ in range(20)]
            socket.send('{"x": [1, 2]}')
            assert "takes rows of a table" in json.loads(socket.recv(timeout=10))["error"]
        with http(live) as web:
            session = web.post("/api/sessions").json()["session"]
            posted = [web.post(f"/api/sessions/{session}/step", json={"row": row}).json() for row in rows[:3]]
            lacking = web.post(f"/api/sessions/{session}/step", json={"row": {"time": 9.0, "a": 1.0}})
            assert web.get("/api/about").json()["takes"] == "row"
    assert lacking.status_code == 400
    assert "row 4 lacks 'b'" in lacking.json()["error"]
    for answer in (*answers, *posted):
        assert api.check(answer, api.FROM_STEP["row"]) is None
    for name in names:
        np.testing.assert_allclose([a["said"][name] for a in answers], whole[name][:20], atol=1e-5)
        assert [p["said"][name] for p in posted] == [a["said"][name] for a in answers[:3]]


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    recipe = small("translate")
    recipe = replace(recipe, training=replace(recipe.training, steps=4, warmup=1, validate_every=4))
    return fit("translate", recipe, tmp_path_factory.mktemp("translate") / "run", **quiet)


def test_a_run_that_reads_whole_texts_is_served_with_its_own_search_and_attention(translator):
    text = "abc"
    with served(translator) as live, http(live) as web, ws(live, "/api/stage") as page:
        assert told(page.recv())["panels"] == ["say"]
        said = web.post("/api/say", json={"text": text}).json()
    assert api.check(said, api.SAID) is None
    by_hand = translator.recipe.task.speaker(translator).say(text)
    assert (said["text"], said["score"]) == (by_hand["text"], pytest.approx(by_hand["score"], abs=1e-4))
    if said["pieces"]:
        weights = np.array(said["attention"]["weights"])
        assert weights.shape == (len(said["pieces"]) + 1, len(said["attention"]["source"]))
        np.testing.assert_allclose(weights.sum(1), 1, atol=0.01)


def test_a_run_without_steps_is_refused_as_a_show_with_the_reason(translator):
    with pytest.raises(UserError, match="can't be shown live step by step: it reads a whole source") as refused:
        staged(translator, Source(webcam=True), Limits(), **quiet)
    assert "leave out --data, --video, --webcam and --microphone" in str(refused.value)
    with pytest.raises(UserError, match="run can't be shown live step by step: it reads a whole source"):
        spoken(translator, Source(), translator.model().no_step, None)


def test_a_model_of_steps_says_nothing_about_whole_texts(live):
    with http(live) as web:
        answer = web.post("/api/say", json={"text": "x"})
    assert (answer.status_code, "whole texts" in answer.json()["error"]) == (409, True)


# The end


def test_everybody_is_told_when_the_server_stops(run):
    with served(run) as live:
        steps, page = ws(live).__enter__(), ws(live, "/api/stage").__enter__()
        told(page.recv())
        live_port = live.guard.port
    for one in (steps, page):
        message = ""
        while not (isinstance(message, str) and "goodbye" in message):
            message = one.recv(timeout=5)
        assert json.loads(message) == {"type": "goodbye", "why": "the server was stopped"}
        with pytest.raises(ConnectionClosed) as closed:
            one.recv(timeout=5)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the server was stopped")
    with pytest.raises(UserError, match="no live server answers"):
        Client(f"http://127.0.0.1:{live_port}", "x")


def test_a_uvicorn_that_lacks_what_is_built_on_is_refused_with_what_is_missing():
    check_protocols()
    with pytest.raises(UserError, match=r"its Viewer has no transport; run: pip install 'steersman\[live\]'"):
        check_protocols({Viewer: ("transport", "show")})


def test_a_port_that_is_taken_is_said(live):
    with pytest.raises(UserError, match=f"port {live.guard.port} is taken"):
        bound("127.0.0.1", live.guard.port)


def test_a_port_that_is_taken_is_said_before_any_record_is_read(live, run, monkeypatch):
    def never(*_):
        raise AssertionError("read")

    monkeypatch.setattr("steersman.live.command.staged", never)
    with pytest.raises(UserError, match=f"port {live.guard.port} is taken"):
        command.live([str(run.folder), "--port", str(live.guard.port)])


def test_a_browser_is_opened_without_the_token_and_the_addresses_are_printed(run, tmp_path):
    browser, opened = tmp_path / "browser.py", tmp_path / "opened"
    browser.write_text(f"import sys; open({str(opened)!r}, 'w').write(sys.argv[1] + '\\n')")
    command = [sys.executable, "-m", "steersman", "live", str(run.folder), "--port", "0", "--origin", PROXY]
    environment = os.environ | {"BROWSER": f"{sys.executable} {browser} %s"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        where, also = (process.stdout.readline().split()[1] for _ in range(2))
        token = where.partition("=")[2]
        assert also == f"{PROXY}/?token={token}"
        while not (opened.exists() and (address := opened.read_text()).endswith("\n")):
            assert process.poll() is None
            time.sleep(0.01)
        # What stands on a command line any user can read; of what stands in the file nobody else.
        assert address.startswith("file:")
        page = Path(urlsplit(address.strip()).path)
        assert (page.stat().st_mode & 0o777, page.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        once = re.search(r'url=([^"]*)"', page.read_text())[1]
        assert once.partition("=")[0] == where.partition("=")[0]
        ticket = once.partition("=")[2]
        assert token not in page.read_text()
        assert ticket not in address
        kept = [httpx.get(once.strip(), trust_env=False).headers["set-cookie"]]
        by_proxy = {"Host": "car.example", "Origin": PROXY}
        kept += [httpx.get(where, headers=by_proxy, trust_env=False).headers["set-cookie"]]
        assert ["; Secure" in cookie for cookie in kept] == [False, True]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert not page.parent.exists()


@pytest.mark.parametrize(
    ("how", "told", "code", "said"),
    [(signal.SIGINT, "the server was stopped", 130, "stopped"), (signal.SIGKILL, "it broke off", -9, "")],
    ids=["Ctrl-C", "kill -9"],
)
def test_the_command_serves_until_it_is_ended_and_its_clients_hear_of_it(run, how, told, code, said):
    command = [sys.executable, "-m", "steersman", "live", str(run.folder), "--port", "0", "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with Client(process.stdout.readline().removeprefix("live: ").strip()) as steps:
            steps.step(np.zeros((24, 32, 3), np.uint8))
            process.send_signal(how)
            assert process.wait(10) == code
            with pytest.raises(UserError, match=told):
                steps.step(np.zeros((24, 32, 3), np.uint8))
            assert process.stderr.read().strip() == said
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
