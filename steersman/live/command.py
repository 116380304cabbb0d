"""Commands of this room."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT, parsed, say
from ..progress import bars
from ..training.run import Run, find
from . import live_part
from .browser import opened
from .limits import Limits
from .shows import Source
from .stage import staged

OWN_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Serve:
    """Serves a model on this machine: a page to watch it on, and an API of steps for other programs."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    source: Annotated[Source, tyro.conf.arg(name="")] = Source()
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own lets others in who know the token."""
    port: int = 8765
    """Port to listen on; 0: any that is free."""
    origin: tuple[str, ...] = ()
    """Addresses by which the server is reached through a proxy or a tunnel, such as https://car.example."""
    open: bool = True
    """Open the page in a browser."""
    recordings: str = ""
    """Folder of a person's drives in the simulator; empty: below `drives`, named after the simulator."""
    limits: Limits = Limits()

    BOUNDS = {"port": (0, 65_535)}


def live(arguments: list[str]) -> None:
    """serve a model live, and a page to watch it on"""
    options = parsed(Serve, arguments, "live")
    serve, seat = live_part("serve"), live_part("seat")
    run = Run.open(find(options.run))
    listening = serve.bound(options.host, options.port)
    guard = serve.guarding(listening, options.host, options.origin)
    with bars() as watch:
        stage = staged(run, options.source, options.limits, say, watch)
    server = serve.prepared(stage, guard, options.limits)
    OUT.print(f"live: {serve.address(guard)}")
    for origin in guard.origins:
        OUT.print(f"also: {origin}/?token={guard.token}")
    if options.host not in OWN_HOSTS:
        say(f"{options.host} is not this machine alone: whoever knows the address with its token may watch and drive")
    if options.open:
        once = serve.address(guard, guard.ticket())
        threading.Thread(target=opened, args=(once,), daemon=True).start()
    with seat.seated(stage, run, Path(options.recordings) if options.recordings else None, say):
        server.run(sockets=[listening])
