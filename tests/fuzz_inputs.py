"""What else comes from outside, changed by a coverage-guided fuzzer: `python tests/fuzz_inputs.py KIND [-help=1]`.

Kinds are the functions below: each gives what is run on an input, what may be refused, and inputs to begin with. A
crash other than that is a bug; its input is left behind. `planted` is one, to see that faults are found at all.
"""

import atexit
import contextlib
import gzip
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
    old = [
        {"recipe": {"kind": kind, "split": {}, "head": {"targets": ["steer"]}}} for kind in ("Recipe", "Translation")
    ]
    seeds = [whole | {"recipe": recipe} for recipe in recipes] + [whole | {"format": 1} | recipe for recipe in old]
    return one, (UserError,), [json.dumps(seed).encode() for seed in seeds]


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


def tables() -> Fuzzer:
    """A table of each format, and what a recipe makes of its clock and columns."""
    import pyarrow as pa
    from pyarrow import feather, parquet

    from steersman.recipes.series.recipes import forecast
    from steersman.sources.tables import READERS, read

    endings = sorted(READERS)
    recipe = forecast([1])

    def one(data: bytes) -> None:
        place = ROOT / f"a{endings[data[0] % len(endings)]}" if data else ROOT / "a.csv"
        place.write_bytes(data[1:])
        for record in recipe.transform_records(read(place)):
            for stream in record.streams.values():
                assert len(stream.values) == len(stream.time_s)

    def made(ending: str, content: bytes) -> bytes:
        return bytes([endings.index(ending)]) + content

    table = pa.table({"time": [0.0, 1.0, 2.0], "load": [1.0, None, 3.0], "kind": ["a", "b", ""]})
    packed, arrow, npz = io.BytesIO(), io.BytesIO(), io.BytesIO()
    parquet.write_table(table, packed)
    feather.write_feather(table, arrow)
    np.savez(npz, x=np.arange(6.0).reshape(3, 2), time=np.arange(3.0))
    seeds = [
        made(".csv", b"time,load\n2024-01-01 00:00,1.5\n2024-01-01 01:00,\n"),
        made(".csv", b"zeit;wert\n1;1,5\n2;-\n"),
        made(".jsonl", b'{"time": 1, "load": 2.5}\n{"time": 2, "load": null}\n'),
        made(".ts", b"@timeStamps false\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n"),
        made(".arff", b"@relation r\n@attribute a numeric\n@attribute c {x,y}\n@data\n1.5,x\n"),
        made(".parquet", packed.getvalue()),
        made(".arrow", arrow.getvalue()),
        made(".npz", npz.getvalue()),
    ]
    return one, (UserError,), seeds


def sounds() -> Fuzzer:
    import wave

    from steersman.sources.sound import read, samples

    place = ROOT / "sounds" / "yes"
    place.mkdir(parents=True)
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.arange(800, dtype="<i2").tobytes())

    def one(data: bytes) -> None:
        (place / "a.wav").write_bytes(data)
        for record in read(place.parent):
            assert np.isfinite(samples(record, 8000)).all()

    return one, (UserError,), [whole.getvalue(), b"fLaC\0\0\0\x22", b"OggS\0\2", b"ID3\3\0"]


def patients() -> Fuzzer:
    from steersman.sources.physionet import read

    place = ROOT / "set-a"
    place.mkdir()
    (place / "Outcomes-a.txt").write_text(
        "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n1,6,1,5,-1,0\n"
    )

    def one(data: bytes) -> None:
        (place / "1.txt").write_bytes(data)
        read(place)

    text = b"Time,Parameter,Value\n00:00,RecordID,1\n00:00,Age,54\n00:00,Gender,0\n00:07,HR,73\n12:30,Urine,200\n"
    return one, (UserError,), [text]


def books() -> Fuzzer:
    from steersman.sources.order_books import read

    message, book, other = (ROOT / n for n in ("A_message_1.csv", "A_orderbook_1.csv", "Train_1.txt"))

    def one(data: bytes) -> None:
        first, _, second = data.partition(b"|")
        for path, content in ((message, first), (book, second), (other, data)):
            path.write_bytes(content)
        for path in (message, other):
            with contextlib.suppress(UserError):
                read(path)

    rows = b"34200.1,1,11,18,5853300,1\n34200.2,4,12,20,5853400,-1\n|5859400,200,5853300,18\n5859400,180,5853300,18\n"
    return one, (UserError,), [rows, b"1 2 3\n4 5 6\n"]


def labelled_pictures() -> Fuzzer:
    """Pictures and labels in IDX, arrays of NumPy, and single pictures of a folder."""
    from PIL import Image

    from steersman.sources.pictures import Pictures

    place = ROOT / "pictures"
    (place / "a").mkdir(parents=True)
    names = [place / name for name in ("t-images-idx3-ubyte", "t-images-idx3-ubyte.gz", "t.npz", "a/b.png")]
    pictures, packed, file = np.zeros((2, 3, 4), np.uint8), io.BytesIO(), io.BytesIO()
    np.savez(packed, x=pictures, y=np.arange(2))
    Image.fromarray(pictures[0]).save(file, "PNG")
    idx = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 3, 4) + pictures.tobytes()
    (place / "t-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1)) + struct.pack(">I", 2) + b"\0\1")

    def one(data: bytes) -> None:
        at = names[data[0] % len(names)] if data else names[0]
        at.write_bytes(data[1:])
        try:
            for record in Pictures(5, 6).open([str(at if at.suffix == ".npz" else at.parent)]):
                assert record["picture"].values.shape == (1, 5, 6)
        finally:
            at.unlink()

    return (
        one,
        (UserError,),
        [b"\0" + idx, b"\1" + gzip.compress(idx), b"\2" + packed.getvalue(), b"\3" + file.getvalue()],
    )


def captions() -> Fuzzer:
    """Tables of captions and questions, COCO's and Flickr's files, beside a picture."""
    from PIL import Image

    from steersman.data.records import text_of
    from steersman.sources.told_pictures import read

    place = ROOT / "told"
    place.mkdir()
    Image.new("RGB", (4, 3)).save(place / "a.png")
    names = [place / name for name in ("a.csv", "captions.txt", "captions.json")]

    def one(data: bytes) -> None:
        at = names[data[0] % len(names)] if data else names[0]
        at.write_bytes(data[1:])
        for record in read(at):
            assert record["picture"].values.shape == (1, 3, 4, 3)
            assert text_of(record["target"])

    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
    listed = [{"file": "a.png", "captions": ["a dog"], "split": "test"}]
    return (
        one,
        (UserError,),
        [
            b"\0image,question,answer,part\na.png,is it a dog?,yes,train\nb.png,what?,no,test\n",
            b"\0image|caption\na.png|a dog, a cat\n",
            b"\1a.png#0\ta dog\na.png#1\ttwo dogs\n",
            *(b"\2" + json.dumps(seed).encode() for seed in (coco, listed)),
        ],
    )


SOURCES = (tables, sounds, patients, books, labelled_pictures, captions)
OTHERS = (config, spec, vocabulary, texts, formula, live, guard, body, journal, planted)
KINDS = {f.__name__: f for f in (*SOURCES, *OTHERS)}


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
