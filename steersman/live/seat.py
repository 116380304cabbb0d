"""The person's seat on a stage with a simulator: the wheel, what is recorded of it, and learning from that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..json_types import JsonObject
from ..training.run import Run
from .learner import Learner, Learning
from .recorder import Recorder
from .stage import Stage
from .wheel import Wheel


@contextmanager
def seated(
    stage: Stage,
    run: Run,
    recordings: Path | None = None,
    say: Callable[[str], None] = print,
    learning: Learning | None = None,
) -> Iterator[None]:
    """Pages may take the wheel of the stage as long as the block lasts; where it has no simulator there is none."""
    world = stage.show.world
    if world is None:
        yield
        return

    def tell(event: JsonObject) -> None:
        if event["type"] == "recorded":
            stage.recorded = event["drives"]
        stage.publish(event)

    recordings = recordings or Path("drives") / f"{world.spec.name}-by-hand"
    recorder = Recorder(recordings, world.spec, stage.show.rate_hz, world.observation, tell, say)
    wheel = Wheel(world.controls, recorder)
    learner = Learner(run, recordings, tell, stage.swap, say, learning=learning or Learning())
    stage.wheel, stage.recorded = wheel, recorder.num_drives
    stage.on |= {
        "control": lambda message: wheel.take(message["values"]),
        "release": lambda _: wheel.release(),
        "learn": lambda _: learner.start(),
    }
    try:
        yield
    finally:
        learner.stop()
        recorder.close()
