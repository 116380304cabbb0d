"""What else comes from outside, changed by a coverage-guided fuzzer: `python tests/fuzz_inputs.py KIND [-help=1]`.

Kinds are the functions below: each gives what is run on an input, what may be refused, and inputs to begin with. A
crash other than that is a bug; its input is left behind. `planted` is one, to see that faults are found at all.
"""

import atexit
import contextlib
import io
import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from fuzzing import fuzz
from small import small

from steersman.config import from_json, to_json
from steersman.errors import UserError

One = Callable[[bytes], object]
Fuzzer = tuple[One, tuple[type[Exception], ...], list[bytes]]
ROOT = Path(tempfile.mkdtemp(prefix="fuzz-"))
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)


def planted() -> Fuzzer:
    """A fault behind six bytes, one after the other: chance would need some 10^14 inputs."""

    def one(data: bytes) -> None:
        for place, sign in enumerate(b"rudder"):
            if len(data) <= place or data[place] != sign:
                return
        raise ZeroDivisionError("planted")

    return one, (UserError,), [b"r"]


def config() -> Fuzzer:
    from steersman.training.run import Run

    folder = ROOT / "run"
    folder.mkdir()

    def one(data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        json.dumps(to_json(Run.open(folder).recipe))

    recipes = [to_json(small(name)) for name in ("echo", "steer", "chars", "translate")]
    whole = {"format": 2, "name": "a", "raw": [4], "data": [], "recipe": recipes[0]}
    return one, (UserError,), [json.dumps(whole | {"recipe": recipe}).encode() for recipe in recipes]


def spec() -> Fuzzer:
    def one(data: bytes) -> None:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return
        to_json(from_json(found))

    return one, (UserError,), [json.dumps(to_json(small(name))).encode() for name in ("echo", "steer", "digits")]


def vocabulary() -> Fuzzer:
    from steersman.data.vocabulary import Characters, Subwords, Words, vocabulary_from_json

    texts = ["the quick brown fox", "der schnelle braune Fuchs", "é x y z"] * 8

    def one(data: bytes) -> None:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return
        known = vocabulary_from_json(found)
        for text in ("the fox", "", "\0", "new words"):
            known.decode(known.encode(text))

    return (
        one,
        (UserError,),
        [json.dumps(k.learn(texts).to_json()).encode() for k in (Words(), Characters(), Subwords(300))],
    )


def texts() -> Fuzzer:
    from steersman.data.records import text_of
    from steersman.sources import catalogues, parallel, text

    places = [ROOT / name for name in ("a.tsv", "a.txt", "a.mo")]

    def one(data: bytes) -> None:
        place = places[data[0] % len(places)] if data else places[0]
        place.write_bytes(data[1:])
        if place.suffix == ".tsv":
            for record in parallel.read([str(place)]):
                text_of(record["source"])
        elif place.suffix == ".mo":
            list(catalogues.read(place))
        else:
            records = text.read(place)
            if "not_utf8_at" not in records[0].about:
                text.texts(records)

    ids, said = b"hello\0", b"bonjour\0"
    mo = struct.pack("<7I", 0x950412DE, 0, 1, 28, 36, 0, 0) + struct.pack("<4I", 5, 44, 7, 50) + ids + said
    return one, (UserError,), [b"\0a\tb\nc\td\n", b"\1some words\r\n", b"\2" + mo]


def formula() -> Fuzzer:
    from steersman.explain.circuits import circuit, said, values

    def one(data: bytes) -> None:
        text, _, given = data.decode(errors="replace").partition("\n")
        found = circuit(text, values(given.split()))
        said(found)
        json.dumps(found.json(), allow_nan=False)

    return one, (UserError,), [b"x*y+max(x,2)^3\nx=1 y=-2", b"sigmoid(x)-tanh(y)/exp(x)\nx=.5 y=1e3"]


def live() -> Fuzzer:
    from steersman.live import api
    from steersman.live.limits import Refused
    from steersman.live.sessions import numbers, parsed

    shapes = [SimpleNamespace(encoder=SimpleNamespace(symbols=s, raw=raw)) for s, raw in ((1, (1,)), (None, (2, 2)))]

    def one(data: bytes) -> None:
        message = parsed(data, 10_000)
        for take in (api.command, api.stepped, lambda m: api.controlled(m, {"steer": (-1.0, 1.0)})):
            try:
                said = take(message)
            except Refused as refused:
                json.dumps(refused.json()).encode()
                continue
            for model in shapes if isinstance(said, dict) and "x" in said else ():
                with contextlib.suppress(Refused):
                    assert np.isfinite(numbers(said, model)).all()

    return (
        one,
        (Refused,),
        [b'{"type": "control", "values": {"steer": 0.1}}', b'{"x": [[1, 2], [3, 4]]}', b'{"x": "a"}'],
    )


def guard() -> Fuzzer:
    from steersman.live.guards import Guard, origin
    from steersman.live.limits import Refused

    one_machine = Guard("127.0.0.1", 8765, "token", ("https://car.example",))
    known = {f"{name}:8765" for name in ("127.0.0.1", "localhost", "[::1]")} | {"car.example"}

    def one(data: bytes) -> None:
        host, _, rest = data.partition(b"\n")
        page, _, token = rest.partition(b"\n")
        headers = [(b"host", host), (b"authorization", b"Bearer " + token), *([(b"origin", page)] if page else [])]
        scope = {"type": "http", "method": "GET", "path": "/api/about", "query_string": token, "headers": headers}
        try:
            one_machine.check(scope)
        except Refused:
            pass
        else:
            name, colon, port = host.decode("latin-1").lower().rpartition(":")
            plain = f"{name}:{int(port)}" if colon else port
            assert plain in known, host
            assert token.decode("latin-1").strip() == "token", token
        origin(page.decode("latin-1"))

    seeds = [
        b"127.0.0.1:8765\n\ntoken",
        b"[::1]:8765\nhttp://[::1]:8765\ntoken",
        b"car.example\nhttps://car.example\nx",
    ]
    return one, (Refused, UserError), seeds


def body() -> Fuzzer:
    """A picture, as the server and every reader decode it."""
    from PIL import Image

    from steersman.live.limits import Refused
    from steersman.live.pictures import decode

    def encoded(kind: str, **options) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind, **options)
        return file.getvalue()

    def one(data: bytes) -> None:
        assert decode(data, 10_000).ndim == 3

    return one, (Refused,), [encoded("JPEG"), encoded("JPEG", progressive=True), encoded("PNG")]


def journal() -> Fuzzer:
    from steersman.live import journal

    path = ROOT / "a.journal"
    written = journal.Journal(path, {"picture": ("uint8", (2, 2, 3)), "steer": ("float32", ())})
    for i in range(3):
        written.append({"picture": np.full((2, 2, 3), i, np.uint8), "steer": i / 10})
    written.close()
    whole = path.read_bytes()

    def one(data: bytes) -> None:
        path.write_bytes(data)
        streams, lost = journal.read(path)
        assert lost >= 0
        assert len({len(values) for values in streams.values()}) == 1

    return one, (UserError,), [whole]


KINDS = {f.__name__: f for f in (config, spec, vocabulary, texts, formula, live, guard, body, journal, planted)}


def main() -> None:
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in KINDS:
        sys.exit(f"name one of {', '.join(KINDS)}")
    one, refused, seeds = KINDS[name]()
    corpus = ROOT / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    sys.argv.append(str(corpus))
    fuzz(one, refused)


if __name__ == "__main__":
    main()
