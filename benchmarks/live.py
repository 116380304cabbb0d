"""A live server under load: what it adds to a step, many sessions at once, and clients that mean harm.

    python benchmarks/live.py added [--frames 2000]
    python benchmarks/live.py same RUN
    python benchmarks/live.py sessions [--sessions 50] [--rate 20] [--minutes 5]
    python benchmarks/live.py hostile [--messages 10000]

The server is `steersman live steer` in a process of its own, its clients are here, on the same machine; pictures are
those of the simulator as PNG. `added`: a WebSocket round trip beside the same step in process, in turn; medians.
`same`: each held-out drive of a run of pictures through the server, beside what evaluation says of it.
`sessions`: each streams a drive of its own at the rate, and every answer is held against that drive's own in process;
memory is the server's resident set. `hostile`: every act is counted by how it was met, while an honest session goes on.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import steersman as sm
import steersman.training.fit
from steersman.errors import exit_with_message
from steersman.export.session import Stepping
from steersman.live.client import Client
from steersman.live.pictures import png
from steersman.worlds import CarRacing

STEPS = 150
"""Steps of a drive, which is streamed over and over."""
AGREES = 1e-4
LATE_MS = 50
"""Milliseconds of a round trip, at the 99th percentile."""


class Served:
    """The command in a process of its own."""

    def __init__(self, run: str, *options: str):
        command = [sys.executable, "-m", "steersman", "live", run, "--port", "0", "--no-open", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("live: ").strip()
        parts = urlsplit(self.address)
        self.netloc, (self.token,) = parts.netloc, parse_qs(parts.query)["token"]

    def socket(self, path: str = "/api/step", token: str = "", **headers: str):
        headers = {"Authorization": f"Bearer {token or self.token}"} | headers
        where = f"ws://{self.netloc}{path}"
        return connect(where, additional_headers=headers, compression=None, proxy=None, close_timeout=2)

    @property
    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(*options: str, run: str = "steer") -> Iterator[Served]:
    server = Served(run, *options)
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGINT)
        print(f"the server ended with {server.process.wait(15)} (130: by Ctrl-C)")


def drives(number: int, steps: int = STEPS) -> tuple[list[tuple[list[bytes], list[float]]], float]:
    """Pictures of drives of the expert, each on a track of its own, and what the model says of each in process.

    And the milliseconds of CPU time that the model took for a step.
    """
    world, stepping, found, spent_s = CarRacing().build(), Stepping(sm.load("steer")), [], 0.0
    for seed in range(number):
        picture, _ = world.reset(seed=seed)
        expert, pictures, said = world.expert(), [], []
        stepping.reset()
        for _ in range(steps):
            pictures.append(png(picture))
            began = time.process_time()
            said.append(stepping.step(picture)["steer"])
            spent_s += time.process_time() - began
            picture, *_ = world.step(world.act(expert.act(world)))
        found.append((pictures, said))
    return found, 1e3 * spent_s / (number * steps)


def added(frames: int) -> None:
    """What a server adds: in turn a step in process, and the same picture through the server."""
    ((pictures, _),), _ = drives(1)
    from steersman.live.pictures import decode

    stepping = Stepping(sm.load("steer"))
    taken = {"in process": [], "through the server": []}
    with served("--limits.rate-hz", "100000") as server, Client(server.address) as client:
        for i in range(-100, frames):
            data = pictures[i % STEPS]
            picture = decode(data, 10**6)
            began = time.perf_counter()
            stepping.step(picture)
            between = time.perf_counter()
            client.step(data)
            ended = time.perf_counter()
            if i >= 0:
                taken["in process"].append(between - began)
                taken["through the server"].append(ended - between)
    for name, seconds in taken.items():
        low, middle, high, late = 1e3 * np.quantile(seconds, (0.25, 0.5, 0.75, 0.99))
        print(f"{name:<20}{middle:7.3f} ms [{low:.3f} {high:.3f}], 99th percentile {late:.2f} ms")
    middle = 1e3 * np.median(np.subtract(taken["through the server"], taken["in process"]))
    print(f"added at the median, decoding the PNG included: {middle:.3f} ms over {frames} frames")


def same(folder: str) -> bool:
    run = sm.Run.open(Path(folder))
    records, model, worst = run.records()["test"], run.model(), 0.0
    with served(run=folder) as server:
        for record, said in zip(records, model.predict(run.recipe.examples(model, records)), strict=True):
            with Client(server.address) as client:
                pictures = record[run.recipe.inputs].values
                found = [list(client.step(picture)["prediction"].values()) for picture in pictures]
            apart = float(np.abs(np.array(found) - said).max())
            print(f"{record.name}: {len(found)} steps, farthest from evaluation {apart:.2g}")
            worst = max(worst, apart)
    return worst <= AGREES


async def session(server: Served, drive, rate: float, until: float, taken: list[float], wrong: list[float]) -> int:
    """Streams a drive over and over; what it took each time, and answers that are not that drive's."""
    pictures, said = drive
    steps = 0
    async with server.socket() as socket:
        due = time.perf_counter() + random.random() / rate
        while time.perf_counter() < until:
            place = steps % STEPS
            if steps and place == 0:
                await socket.send('{"type": "reset"}')
                await socket.recv()
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due = max(due + 1 / rate, time.perf_counter() - 1)
            began = time.perf_counter()
            await socket.send(pictures[place])
            answer = json.loads(await socket.recv())
            taken.append(time.perf_counter() - began)
            apart = abs(answer["prediction"]["steer"] - said[place])
            if not apart <= AGREES or answer["dropped"]:
                wrong.append(apart)
            steps += 1
    return steps


async def many(server: Served, sessions: int, rate: float, minutes: float) -> bool:
    shown, model_ms = drives(sessions)
    taken: list[float] = []
    wrong: list[float] = []
    memory: list[tuple[float, float]] = []
    began = time.perf_counter()
    until = began + 60 * minutes

    async def look() -> None:
        while time.perf_counter() < until:
            memory.append((time.perf_counter() - began, server.resident_mb))
            await asyncio.sleep(1)

    looking, before = asyncio.create_task(look()), server.cpu_s
    steps = await asyncio.gather(*(session(server, drive, rate, until, taken, wrong) for drive in shown))
    await looking
    seconds = time.perf_counter() - began
    cpu_ms = 1e3 * (server.cpu_s - before) / sum(steps)
    median, late, worst = 1e3 * np.quantile(taken, (0.5, 0.99, 1.0))
    first = min(60.0, seconds / 2)
    after = [mb for second, mb in memory if second >= first]
    grown = 100 * (max(after) / after[0] - 1)
    print(f"{sessions} sessions, {sum(steps)} steps in {seconds:.0f} s: {sum(steps) / seconds:.0f} a second in all")
    print(f"CPU time of the server: {cpu_ms:.2f} ms a step")
    print(f"... the model's in process: {model_ms:.2f} ms, {100 * model_ms / cpu_ms:.0f} % of that")
    print(f"round trip: median {median:.2f} ms, 99th percentile {late:.2f} ms, worst {worst:.0f} ms")
    print(f"... wanted: a 99th percentile under {LATE_MS} ms")
    print(f"answers that were not those of the session's own drive: {len(wrong)}")
    print(f"memory {after[0]:.0f} MB after {first:.0f} s, at most {max(after):.0f} MB from then on: {grown:+.1f} %")
    return not wrong and late < LATE_MS and grown < 5


def bomb() -> bytes:
    from zlib import compress, crc32

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + crc32(kind + data).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = compress(bytes(2**24), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


BOMB = bomb()
LARGEST = 2**18
LORIS_S = 2.0
ORIGINS = ("http://evil.example", "null", "http://127.0.0.1", "http://[")


def bad(kind: str, rng: random.Random, picture: bytes) -> bytes | str:
    """A message of a kind."""
    if kind == "oversized":
        return rng.randbytes(LARGEST + rng.randrange(1, LARGEST))
    if kind == "truncated":
        return picture[: rng.randrange(len(picture) - 30)]
    if kind == "bomb image":
        return BOMB
    if kind == "bytes":
        return rng.randbytes(rng.randrange(500))
    values = [None, True, -1, 1e308, "x" * 300, [], {}, [[1]], {"type": {}}, {"type": "wheel", "steer": "left"}]
    kinds = ["step", "reset", "wheel", "pause", "record", "", 7]
    text = json.dumps({"type": rng.choice(kinds), "x": rng.choice(values)})
    return text[: rng.randrange(len(text) + 1)] if rng.random() < 0.3 else text if rng.random() < 0.8 else "[" * 9000


async def sent(server: Served, kind: str, rng: random.Random, picture: bytes) -> str:
    """One bad message to a socket of its own; how it was met."""
    async with server.socket(rng.choice(["/api/step", "/api/stage"])) as socket:
        try:
            await socket.send(bad(kind, rng, picture))
            while True:
                message = await asyncio.wait_for(socket.recv(), 20)
                if isinstance(message, str) and (said := json.loads(message)).get("type") != "hello":
                    return "answered" if "error" in said or said.get("type") == "reset" else "another answer"
        except ConnectionClosed as closed:
            return f"closed with a reason ({closed.rcvd.code})" if closed.rcvd else "closed without a reason"


async def refused(server: Served, **headers: str) -> str:
    try:
        async with server.socket(**headers):
            return "let in"
    except InvalidStatus as error:
        return f"refused ({error.response.status_code})" if "do" in json.loads(error.response.body) else "no reason"


async def dripped(server: Served, rng: random.Random, body: bool) -> str:
    """A request whose head, or body, comes a byte at a time, or not at all; a body with the token or without."""
    host, _, port = server.netloc.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"POST /api/sessions/none/step HTTP/1.1\r\nHost: {server.netloc}\r\n"
    request += f"Authorization: Bearer {server.token}\r\n" * (not body or rng.random() < 0.5)
    if body:
        writer.write(f"{request}Content-Length: 100000\r\n\r\n".encode())
        request = "x" * 1000
    begun = time.perf_counter()
    try:
        for letter in request[: rng.randrange(len(request))].encode():
            writer.write(bytes([letter]))
            await writer.drain()
            await asyncio.sleep(0.05)
            if reader.at_eof() or (reader._buffer and not body):  # pyright: ignore
                break
            if time.perf_counter() - begun > 4 * LORIS_S:
                return "let drip on"
        found = await asyncio.wait_for(reader.read(2000), 10 * LORIS_S)
    except ConnectionError:
        found = bytes(reader._buffer)  # pyright: ignore
    finally:
        writer.close()
    return f"answered ({found[9:12].decode()})" if found.startswith(b"HTTP/1.1 ") else "closed"


async def left(server: Served, rng: random.Random, picture: bytes) -> str:
    """Closes in the middle of a message, without a word."""
    socket = await server.socket(rng.choice(["/api/step", "/api/stage"]))
    await socket.send(picture)
    socket.transport.abort()
    return "gone by itself"


def honest(address: str, drive: tuple[list[bytes], list[float]], stop, back) -> None:
    """A process of its own: one session at 20 pictures a second until it is told to stop."""
    pictures, said = drive
    taken, wrong = [], 0
    with Client(address) as client:
        while not stop.is_set():
            place = len(taken) % STEPS
            if place == 0:
                client.reset()
            began = time.perf_counter()
            answer = client.step(pictures[place])
            taken.append(time.perf_counter() - began)
            wrong += not abs(answer["prediction"]["steer"] - said[place]) <= AGREES
            time.sleep(max(0.0, 0.05 - taken[-1]))
    back.put((taken, wrong))


UNMET = ("let in", "let drip on", "closed without a reason", "another answer", "no reason")
KINDS = ("oversized", "truncated", "bomb image", "bytes", "wrong type")


async def hostile(server: Served, messages: int) -> bool:
    (drive,), _ = drives(1)
    pictures = drive[0]
    counts: Counter[tuple[str, str]] = Counter()
    rng = random.Random(0)
    others = ("wrong token", "wrong Origin", "slow loris", "slow body", "sudden close")
    kinds = [rng.choice(KINDS + others) for _ in range(messages)]
    gate = asyncio.Semaphore(24)

    async def one(kind: str) -> None:
        async with gate:
            if kind == "wrong token":
                how = await refused(server, token=rng.choice(["x", server.token[:-1], server.token.swapcase()]))
            elif kind == "wrong Origin":
                how = await refused(server, Origin=rng.choice(ORIGINS))
            elif kind in ("slow loris", "slow body"):
                how = await dripped(server, rng, kind == "slow body")
            elif kind == "sudden close":
                how = await left(server, rng, pictures[0])
            else:
                how = await sent(server, kind, rng, pictures[0])
            counts[kind, how] += 1

    spawn = multiprocessing.get_context("spawn")
    stop, back = spawn.Event(), spawn.Queue()
    beside = spawn.Process(target=honest, args=(server.address, drive, stop, back), daemon=True)
    beside.start()
    await asyncio.gather(*(one(kind) for kind in kinds))
    print(f"{messages} bad messages; the server is {'up' if server.process.poll() is None else 'down'}")
    for (kind, how), count in sorted(counts.items()):
        print(f"  {kind:<14}{how:<32}{count:6d}")
    sums = Counter()
    for (_, how), count in counts.items():
        sums[how.partition(" (")[0]] += count
    print("in all: " + ", ".join(f"{count} {how}" for how, count in sums.most_common()))
    stop.set()
    taken, wrong = back.get(timeout=10)
    late = 1e3 * np.quantile(taken, 0.99)
    print(f"an honest session beside them: {len(taken)} steps, {wrong} wrong, 99th percentile {late:.1f} ms")
    unmet = [how for _, how in counts if how in UNMET]
    return not unmet and not wrong and server.process.poll() is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("added", "same", "sessions", "hostile"))
    parser.add_argument("run", nargs="?", default="", help="run of pictures, for `same`")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--messages", type=int, default=10_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    well = True
    if given.what == "added":
        added(given.frames)
    elif given.what == "same":
        well = same(given.run)
    elif given.what == "sessions":
        with served("--limits.sessions", str(given.sessions)) as server:
            well = asyncio.run(many(server, given.sessions, given.rate, given.minutes))
    else:
        limits = ["--limits.frame-bytes", str(LARGEST), "--limits.arrival-s", str(LORIS_S)]
        with served(*limits) as server:
            well = asyncio.run(hostile(server, given.messages))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
