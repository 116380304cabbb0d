"""The loop: forward through a window of time, backward through it, update; it knows no task."""

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..config import Spec
from ..data.batches import Batch
from ..errors import Interrupted, UserError
from ..files import appended, disk_error, read_file, write_file
from ..json_types import JsonObject, LogRow
from ..nn.cores import detach, map_state, state_tensors
from ..nn.model import SequenceModel
from ..plugins import own_lines
from ..processes import keep_memory, on_threads
from ..progress import Watch, silent
from .checkpoints import Checkpoints, load_optimiser, optimiser_tensors, write_tensors


@dataclass(frozen=True)
class Training(Spec):
    """AdamW with warm-up, a stretch at the full rate and a cosine to the final one (Loshchilov & Hutter 2017, 2019)."""

    steps: int = 1000
    """Updates in all."""
    learning_rate: float = 1.5e-3
    """Learning rate after the warm-up."""
    final_learning_rate: float = 2e-5
    """Learning rate at the end."""
    warmup: int = 50
    """Steps over which the rate rises from zero."""
    constant_share: float = 0.0
    """Share of the steps after the warm-up at the full rate, before the cosine."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    betas: tuple[float, float] = (0.9, 0.999)
    """How slowly AdamW forgets gradients, and their squares."""
    ema_decay: float = 0.0
    """How slowly a running mean of the weights forgets; the mean is what is kept (Polyak & Juditsky 1992). 0: none."""
    frozen: float = 0.0
    """Share of the steps, from the first, in which weights that came pretrained stand still."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; what is longer is scaled down (Pascanu et al. 2013). 0: any."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the network: bfloat16 is by autocast; auto measures both at the start and takes the faster."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    validate_every: int = 200
    """Steps between looks at the validation records."""
    patience: int = 0
    """Looks without improvement after which training stops; 0: never."""
    seed: int = 0
    """Seed of the weights, the order of the data, dropout and augmentation."""
    tensorboard: bool = False
    """Whether to write TensorBoard events, too."""

    BOUNDS = {
        **dict.fromkeys(("steps", "checkpoint_every", "validate_every"), (1, math.inf)),
        **dict.fromkeys(
            ("learning_rate", "final_learning_rate", "warmup", "weight_decay", "clip_norm", "patience"), (0, math.inf)
        ),
        **dict.fromkeys(("constant_share", "betas", "ema_decay", "frozen"), (0, 1)),
        "seed": (0, 2**63 - 1),
    }


class _Exploded(Exception):
    """The loss or the gradient is not finite, or far above what it was."""


@dataclass
class Progress:
    """All that the loop carries from step to step beside weights, moments and recurrent state."""

    step: int = 0
    epoch: int = 0
    index: int = 0
    first: float = 0.0
    smooth: float = 0.0
    best: float = math.inf
    stale: int = 0
    rollbacks: int = 0
    dtype: str = ""
    threads: int = 0
    """Threads that a step is computed on; 0: as many as PyTorch takes."""

    def __post_init__(self):
        """ValueError where it is nothing that a trainer has written."""
        counts = (self.step, self.epoch, self.index, self.stale, self.rollbacks, self.threads)
        if not all(type(n) is int and 0 <= n < 2**53 for n in counts):
            raise ValueError(f"expected counts from 0 on, found {str(counts)[:80]}")
        if not all(type(n) in (int, float) for n in (self.first, self.smooth, self.best)):
            raise ValueError("expected losses that are numbers")
        if self.dtype not in ("", "float32", "bfloat16"):
            raise ValueError(f"expected float32 or bfloat16, found {str(self.dtype)[:20]!r}")


class Trainer:
    """One training run in `folder`: makes or resumes it, and keeps weights, log and checkpoints there."""

    def __init__(
        self,
        model: SequenceModel,
        batches: Any,
        training: Training,
        folder: Path,
        validate: Callable[[Any], float] | None = None,
        say: Callable[[str], None] = print,
        watch: Watch = silent,
        look: "Look | None" = None,
        deadline: float = math.inf,
    ):
        """`validate` gives a score, the lower the better; `deadline` is in seconds of `time.monotonic`."""
        self.look, self.deadline, self.over = look, deadline, False
        self.model, self.batches, self.training, self.folder = model, batches, training, folder
        self.validate, self.say, self.watch = validate, say, watch
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.at = Progress()
        self.network = (
            nn.parallel.DistributedDataParallel(model) if batches.ranks > 1 else model  # averages gradients
        )
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay
        )
        self.kept = copy.deepcopy(model) if training.ema_decay else model
        """What is judged and written: the model, or the running mean of its weights."""
        self.state, self.epoch = model.initial(batches.rows), batches.epoch(0)
        self.seconds = {"compute": 0.0, "all": 0.0}

    def run(self) -> None:
        """Trains to the end or the deadline. Interrupted on Ctrl-C or SIGTERM; UserError at a third explosion."""
        self.folder.mkdir(parents=True, exist_ok=True)
        keep_memory()
        if self.checkpoints.steps():
            self._load(self.checkpoints.steps()[-1])
        else:
            self.at.dtype = choose_precision(self)
            self.at.threads = choose_threads(self)
            self._save()
        self.model.train()
        with _interrupts() as interrupted, on_threads(self.at.threads):
            while not self._finished():
                try:
                    self._go(interrupted)
                except _Exploded as error:
                    self._roll_back(str(error))
        if self.at.step < self.training.steps:
            stale = f"no better for {self.at.stale} looks at the validation records: stopped early"
            over = f"the time is over: stopped at step {self.at.step} of {self.training.steps}; it can go on from there"
            self.say(over if self.over else stale)
        self._save()
        if self.validate is None and self._chief:
            write_tensors(self.folder / "model.safetensors", self.kept.state_dict())

    def _finished(self) -> bool:
        patience = self.training.patience
        return self.over or self.at.step >= self.training.steps or bool(patience and self.at.stale >= patience)

    def _go(self, interrupted: threading.Event) -> None:
        with self._log() as log:
            while not self._finished():
                self._step(log)
                # One process may hear of a signal a step before the others; all must stop at the same one.
                if self._everywhere(torch.tensor(float(interrupted.is_set()))).item():
                    self._save()
                    raise Interrupted(f"stopped at step {self.at.step} of {self.training.steps}")

    def _step(self, log: Callable[[dict], None]) -> None:
        began = time.perf_counter()
        at, training = self.at, self.training
        batch = self._next_batch()
        rate = self.rate(at.step) * 0.5**at.rollbacks
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        ready = time.perf_counter()
        loss, state = self.forward(batch, at.dtype)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if at.step < training.frozen * training.steps:
            for parameter in self.model.pretrained():
                parameter.grad = None  # It then stands still, decay and moments included.
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm or math.inf).item()
        value = self._everywhere(loss.detach()).item() / self.batches.ranks
        self._check(value, norm)
        self.optimiser.step()
        self._average()
        self.state = detach(state)
        done = time.perf_counter()
        at.step, at.index = at.step + 1, at.index + 1
        if at.step == 1:
            at.first = at.smooth = value
        at.smooth = 0.98 * at.smooth + 0.02 * value
        self.seconds["compute"] += done - ready
        row = {"step": at.step, "epoch": at.epoch, "loss": value, "rate": rate, "gradient_norm": norm}
        if self.deadline < math.inf:  # One process may be late before the others.
            self.over = self._everywhere(torch.tensor(float(time.monotonic() >= self.deadline))).item() > 0
        last = self.over or at.step == training.steps
        self.seconds["all"] += time.perf_counter() - began
        if self.validate and (last or at.step % training.validate_every == 0):
            row["validation"] = self._look()
        if self.look:
            row |= self.look(self, batch)
        row["seconds"] = time.perf_counter() - began
        log(row)
        if at.step % training.checkpoint_every == 0 and not last:
            self._save()

    def forward(self, batch: Batch, dtype: str) -> tuple[Tensor, Any]:
        """The mean loss of a batch over all processes' weights, and the state after it."""
        device = self.model.device
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            raw, state = self.network(batch, self.state)
        total, weight = self.model.loss(batch, raw)
        # Gradients are averaged over processes, so each scales its sum by how many there are.
        return total * self.batches.ranks / self._everywhere(weight).clamp_min(1e-8), state

    @torch.no_grad()
    def _average(self) -> None:
        if self.kept is self.model:
            return
        # At first the mean is over all steps there were: it would remember the random start for long.
        forget = max(1 - self.training.ema_decay, 1 / (self.at.step + 1))
        for mean, now in zip(self.kept.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, forget)
        for kept, now in zip(self.kept.buffers(), self.model.buffers(), strict=True):
            kept.copy_(now)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        t = self.training
        if step < t.warmup:
            return t.learning_rate * (step + 1) / t.warmup
        begin = t.warmup + t.constant_share * max(0, t.steps - t.warmup)
        share = max(0.0, step - begin) / max(1, t.steps - begin)
        return t.final_learning_rate + (t.learning_rate - t.final_learning_rate) * (1 + math.cos(math.pi * share)) / 2

    def _next_batch(self) -> Batch:
        if self.epoch.epoch != self.at.epoch:
            self.epoch = self.batches.epoch(self.at.epoch)
        if self.at.index >= len(self.epoch):
            self.at.epoch, self.at.index = self.at.epoch + 1, 0
            self.epoch = self.batches.epoch(self.at.epoch)
        if self.at.index == 0 or not self.batches.spec.carry:
            self.state = self.model.initial(self.batches.rows)
        return self.epoch[self.at.index]

    def _check(self, loss: float, norm: float) -> None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise _Exploded(f"at step {self.at.step} the loss is {loss:g} and the gradient's norm {norm:g}")
        # One hard example may cost far more than the rest; but not more than all did at the start.
        near = 1.0 if self.model.head.below_zero else 0.0
        usual = max(self.at.first, self.at.smooth) + 20 * max(abs(self.at.smooth), near)
        if self.at.step > self.training.warmup and loss > usual:
            raise _Exploded(f"at step {self.at.step} the loss leapt from {self.at.smooth:.3g} to {loss:.3g}")

    def _roll_back(self, cause: str) -> None:
        if self.at.rollbacks == 2:
            raise UserError(
                f"training exploded a third time: {cause}; look at the data, or lower --training.learning-rate"
            )
        rollbacks = self.at.rollbacks + 1
        self._load(self.checkpoints.steps()[-1])
        self.at.rollbacks = rollbacks
        self.say(f"{cause}: back to step {self.at.step}, with {0.5**rollbacks:g} of the rate")

    def _look(self) -> float:
        assert self.validate is not None
        try:
            score = self.validate(self.kept)
        except ValueError as error:  # Weights that have run away make a state that no core takes.
            if own_lines(error):
                raise
            raise _Exploded(f"at step {self.at.step} the validation records can't be gone through ({error})") from error
        if score < self.at.best:
            self.at.best, self.at.stale = score, 0
            if self._chief:
                write_tensors(self.folder / "model.safetensors", self.kept.state_dict())
        else:
            self.at.stale += 1
        return score

    def _everywhere(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.batches.ranks == 1:
            return value
        value = value.detach().to(self.model.device, copy=True)
        dist.all_reduce(value)
        return value

    @property
    def _chief(self) -> bool:
        return self.batches.rank == 0

    def _save(self) -> None:
        """Writes a checkpoint: all of what the next step depends on, of every process."""
        lanes = {str(i): self._gathered(t) for i, t in enumerate(state_tensors(self.state))}
        generator = self._gathered(torch.get_rng_state()[None])
        if self._chief:
            tensors = {
                "model": self.model.state_dict(),
                "optimiser": optimiser_tensors(self.optimiser),
                "lanes": lanes,
                "generator": {"cpu": generator},
            }
            if self.kept is not self.model:
                tensors["average"] = self.kept.state_dict()
            if self.model.device.type == "cuda":
                tensors["generator"]["cuda"] = torch.cuda.get_rng_state(self.model.device)
            self.checkpoints.write(self.at.step, tensors, vars(self.at))
        if self.batches.ranks > 1:
            dist.barrier()  # A process that goes on, or ends, may rely on the checkpoint.

    def _load(self, step: int) -> None:
        try:
            self._restore(*self.checkpoints.read(step))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(
                f"checkpoint {step} in {self.checkpoints.folder} is damaged ({detail}); "
                "remove its folder to go on from the one before"
            ) from error

    def _restore(self, tensors: dict[str, dict[str, Tensor]], progress: JsonObject) -> None:
        self.model.load_state_dict(tensors["model"])
        if self.kept is not self.model:
            self.kept.load_state_dict(tensors["average"])
        load_optimiser(self.optimiser, tensors["optimiser"])
        self.at = Progress(**progress)
        rank, ranks = self.batches.rank, self.batches.ranks
        lanes = (tensors["lanes"][str(i)][rank::ranks] for i in range(len(tensors["lanes"])))
        self.state = map_state(lambda _: next(lanes).to(self.model.device), self.state)
        states = tensors["generator"]["cpu"]
        torch.set_rng_state(states[rank % len(states)].clone())  # PyTorch takes no view of another tensor here.
        if "cuda" in tensors["generator"] and self.model.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator"]["cuda"], self.model.device)

    def _gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes in their order in the global batch."""
        if self.batches.ranks == 1:
            return rows
        rows = rows.to(self.model.device)
        parts = [torch.empty_like(rows) for _ in range(self.batches.ranks)]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @contextmanager
    def _log(self) -> Iterator[Callable[[LogRow], None]]:
        """Appends rows to log.jsonl, after dropping those of steps that are about to be done again."""
        if not self._chief:
            yield lambda row: None
            return
        path = self.folder / "log.jsonl"
        rows = [r for r in read_log(self.folder) if r["step"] <= self.at.step]
        write_file(path, "".join(json.dumps(r) + "\n" for r in rows).encode())
        events = _tensorboard(self.folder, self.at.step + 1) if self.training.tensorboard else None
        try:
            with appended(path) as file:

                def log(row: LogRow) -> None:
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    if events:
                        for name in row.keys() - {"step"}:
                            events.add_scalar(name, row[name], row["step"])
                    self.watch("training", row["step"], self.training.steps, f"loss {self.at.smooth:.4f}")

                yield log
        except OSError as error:
            raise disk_error(error, path) from error
        finally:
            if events:
                events.close()


Look = Callable[[Trainer, Batch], dict[str, float]]
"""Look at a trainer after a step, with its batch; what it gives stands in the log's row of that step."""


MEASURED = ("loss", "rate", "gradient_norm")
"""Figures that every row has."""


def read_log(folder: Path) -> list[LogRow]:
    """The rows of a run's log; a half-written last line is left out. UserError where it is damaged before that."""
    path = folder / "log.jsonl"
    try:
        lines = read_file(path).decode().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}); take another copy of the run") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            row = None
        if not _is_row(row):
            raise UserError(f"{path}, line {number}: not a row of figures; it is damaged: remove the line")
        rows.append(row)
    return rows


def _is_row(row: object) -> bool:
    """Whether it is what the trainer writes after a step."""
    if not isinstance(row, dict) or not all(isinstance(value, int | float | None) for value in row.values()):
        return False
    # What can't be a float stands for a number without bound; so does a step beyond all trainings.
    if any(isinstance(value, int) and abs(value) > 2**53 for value in row.values()):
        return False
    figures = [row.get(name) for name in ("step", *MEASURED)] + [row.get("seconds", 0)]
    return isinstance(row.get("step"), int) and all(f is not None and math.isfinite(f) for f in figures)


SPARED = 0.05
"""Share of a step's time that fewer threads may take longer: with other work beside, threads wait for each other."""


def choose_precision(trainer: Trainer) -> str:
    """The faster of float32 and bfloat16 on the first batch, where the choice is left open."""
    if trainer.training.precision != "auto":
        return trainer.training.precision
    seconds = dict.fromkeys(("float32", "bfloat16"), math.inf)
    with _trial(trainer) as step_seconds:
        for _ in range(4):
            for dtype in seconds:
                seconds[dtype] = min(seconds[dtype], step_seconds(dtype))
    # What the processes measure may differ; what they compute in may not.
    fastest = torch.tensor([float(seconds["bfloat16"] < seconds["float32"])])
    return "bfloat16" if trainer._everywhere(fastest).item() * 2 > trainer.batches.ranks else "float32"


def choose_threads(trainer: Trainer) -> int:
    """The fewest threads, of 1, 2, 4 and so on up to PyTorch's, on which the first batch takes next to no longer."""
    most = torch.get_num_threads()
    if most == 1 or trainer.model.device.type != "cpu":
        return 0
    seconds = dict.fromkeys([*(2**i for i in range(most.bit_length()) if 2**i < most), most], math.inf)
    with _trial(trainer) as step_seconds:
        for _ in range(4):
            for threads in seconds:
                with on_threads(threads):
                    seconds[threads] = min(seconds[threads], step_seconds(trainer.at.dtype))
    return next(n for n, s in seconds.items() if s <= min(seconds.values()) * (1 + SPARED))


@contextmanager
def _trial(trainer: Trainer) -> Iterator[Callable[[str], float]]:
    """A function that gives the seconds of the first batch, forward and backward; training goes on as if unmeasured."""
    generator, batch = torch.get_rng_state(), trainer.batches.epoch(0)[0]

    def step_seconds(dtype: str) -> float:
        began = time.perf_counter()
        trainer.forward(batch, dtype)[0].backward()
        if trainer.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    yield step_seconds
    trainer.optimiser.zero_grad(set_to_none=True)
    torch.set_rng_state(generator)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or SIGTERM into a flag that is looked at between steps; the second one kills.

    What is ignored stays so: a worker leaves Ctrl-C to its parent, who then asks it to end by SIGTERM.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def stop(number, frame):
        flag.set()
        restore()

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield flag
    finally:
        restore()


def _tensorboard(folder: Path, step: int):
    """A writer whose events from `step` on replace those of an earlier go."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            '--training.tensorboard needs TensorBoard; install it with: pip install "steersman[tensorboard]"'
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step)
