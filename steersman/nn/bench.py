"""How fast the cores are beside what else there is: torch's layers, flax, ONNX Runtime, numba.

Ours and the peers' are measured in turn, A B A B, on one thread and by CPU time, so that what else the machine does
touches both alike; what counts is the median. Both are first shown to give the same outputs and the same gradients
of the input from the same weights, over three calls; a linear recurrence against an LSTM is the one exception.

Training is one forward and one backward pass of a core over a whole batch, with gradients of all weights and of the
input, as in the middle of a model. A step takes one NumPy vector and gives one back; for ONNX Runtime the input lies
in its bound buffer already.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import cycle
from math import inf
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..json_types import JsonObject
from ..progress import Watch, silent
from .cores import GRU, LSTM, Core, CoreSpec, LSTMCore, MinGRU, State, to_torch
from .stepper import Stepper

Shape = tuple[int, int, int, int]
"""Sizes of batch, time, input and hidden state."""
SHAPES: dict[str, Shape] = {
    "A": (32, 100, 128, 128),
    "B": (64, 50, 256, 256),
    "D": (8, 1000, 64, 64),
    "E": (16, 10, 512, 64),
    "S": (1, 200, 64, 64),
}
Run = Callable[[], Sequence[Any]]
"""Does the work once and gives what it computed."""


@dataclass(frozen=True)
class Task:
    """What ours and the peers are given alike."""

    core: Core
    x: Tensor
    """Input (batch time feature)."""
    dy: Tensor
    """The gradient that comes from above."""
    precision: torch.dtype = torch.float32
    """bfloat16: the forward pass under autocast; of a step: the weights."""

    @property
    def initial(self) -> State:
        return self.core.initial(len(self.x))


@dataclass(frozen=True)
class Peer:
    name: str
    build: Callable[[Task], Run]
    modules: tuple[str, ...] = ()
    """What has to be installed."""


@dataclass(frozen=True)
class Case:
    """One row of the table: one of ours against the fastest of its peers."""

    what: str
    shape: Shape
    spec: CoreSpec
    peers: tuple[Peer, ...]
    must: float | None = None
    """How many times as fast ours has to be."""
    ours: Peer = Peer("ours", lambda task: training(task))
    precision: torch.dtype = torch.float32
    tolerance: float = 1e-3
    """Greatest difference between ours and a peer's, as a share of the greatest value."""

    @property
    def size(self) -> str:
        letter = next((f"{name} " for name, shape in SHAPES.items() if shape == self.shape), "")
        return letter + ",".join(map(str, self.shape))

    def matches(self, text: str) -> bool:
        peers = " ".join(peer.name for peer in self.peers)
        return text.lower() in f"{self.what} {self.size} {peers}".lower()

    def task(self) -> Task:
        batch, time_, features, hidden = self.shape
        core = self.spec.build(features)
        if isinstance(core, LSTMCore) and core.gain is not None:
            core.gain.detach().fill_(0.3)  # At 1 it is chaotic: after a thousand steps rounding is all that is left.
        x = torch.randn(batch, time_, features, requires_grad=True)
        return Task(core, x, torch.randn(batch, time_, hidden), self.precision)


@dataclass(frozen=True)
class Row:
    """Medians in CPU microseconds a call, and the quartiles of the ratio from turn to turn."""

    what: str
    shape: str
    peer: str
    ours_us: float
    peer_us: float
    ratio: float
    must: float | None
    quartiles: tuple[float, float]

    def json(self) -> JsonObject:
        return {name: getattr(self, name) for name in ("what", "shape", "peer", "ours_us", "peer_us", "ratio", "must")}


# Ours


def training(task: Task) -> Run:
    """Our core over full rows."""
    return _trained(task, task.core, task.initial)


def ragged(task: Task) -> Run:
    """Our core over rows whose lengths are uniform in 1..T."""
    return _trained(task, task.core, task.initial, _lengths(task))


def padded(task: Task) -> Run:
    """Our core over the same rows with their padding; what is beyond a row's end is not looked at."""
    there = torch.arange(task.x.shape[1]) < _lengths(task).unsqueeze(1)
    run = _trained(replace(task, dy=task.dy * there.unsqueeze(2)), task.core, task.initial)

    def shown() -> Sequence[Any]:
        y, *gradients = run()
        return y * there.unsqueeze(2), *gradients

    return shown


def _lengths(task: Task) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, task.x.shape[1] + 1, (len(task.x),), generator=generator)


def _trained(task: Task, module: Callable[..., tuple], *state: object) -> Run:
    """Forward and backward of anything of torch that gives `(y, ...)`."""
    wanted = [task.x, *(module.parameters() if isinstance(module, torch.nn.Module) else task.core.parameters())]

    def run() -> Sequence[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=task.precision == torch.bfloat16):
            y = module(task.x, *state)[0]
        return y, *torch.autograd.grad(y, wanted, task.dy.to(y.dtype))

    return run


def stepping(task: Task) -> Run:
    """Our streaming form."""
    stepper = Stepper(task.core, "bfloat16" if task.precision == torch.bfloat16 else "float32")
    x = task.x[0, 0].detach().numpy()
    return lambda: (stepper.step(x),)


# Peers of training


def torch_layer(task: Task) -> Run:
    """torch's own layer with our weights."""
    return _trained(task, to_torch(task.core))


def torch_lstm(task: Task) -> Run:
    """nn.LSTM of the same size, whatever our core is."""
    return _trained(task, to_torch(LSTM(task.core.size).build(task.core.features)))


def eager_layer_norm(task: Task) -> Run:
    """A loop in PyTorch, as in torch's LayerNormLSTMCell, with the input's product out of it."""
    core = task.core
    assert isinstance(core, LSTMCore)
    assert core.gain is not None
    assert core.cell_gain is not None
    gain, cell_gain, cell_bias = core.gain, core.cell_gain, core.cell_bias
    shape, epsilon = gain.shape, core.EPSILON

    def layer(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor]:
        shown = []
        bias = core.bias_ih + core.bias_hh
        given = F.layer_norm(F.linear(x, core.weight_ih), shape, core.input_gain, bias, epsilon)
        for now in given.unbind(1):
            i, f, g, o = (now + F.layer_norm(h @ core.weight_hh.t(), shape, gain, None, epsilon)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * F.layer_norm(c, cell_gain.shape, cell_gain, cell_bias, epsilon).tanh()
            shown.append(h)
        return (torch.stack(shown, 1),)

    return _trained(task, layer, *task.initial)


def jax_layer_norm(task: Task) -> Run:
    """The same as a jitted scan in JAX."""
    import jax
    import jax.numpy as jnp

    def normal(x, gain, bias=0.0):
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + LSTMCore.EPSILON) * gain + bias

    def layer(weights, x):
        bias = weights["bias_ih"] + weights["bias_hh"]

        def cell(state, given):
            h, c = state
            product = normal(h @ weights["weight_hh"].T, weights["gain"])
            i, f, g, o = jnp.split(given + product, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(normal(c, weights["cell_gain"], weights["cell_bias"]))
            return (h, c), h

        given = normal(x @ weights["weight_ih"].T, weights["input_gain"], bias)
        zero = jnp.zeros((len(x), task.core.size))
        return jax.lax.scan(cell, (zero, zero), given.swapaxes(0, 1))[1].swapaxes(0, 1)

    return _jitted(task, layer, {name: jnp.asarray(w.detach().numpy()) for name, w in task.core.named_parameters()})


def flax_gru(task: Task) -> Run:
    """flax.nnx.RNN around its GRUCell, jitted; its reset gate acts as torch's does, and it has no second bias."""
    import jax.numpy as jnp
    from flax import nnx

    core: Any = task.core
    cell: Any = nnx.GRUCell(core.features, core.size, rngs=nnx.Rngs(0))
    for ours, theirs in ((core.weight_ih, cell.dense_i.kernel), (core.weight_hh, cell.dense_h.kernel)):
        theirs[...] = jnp.asarray(ours.detach().numpy().T)
    cell.dense_i.bias[...] = jnp.asarray(core.bias_ih.detach().numpy())
    graph, weights = nnx.split(nnx.RNN(cell, rngs=False))
    start = jnp.zeros((len(task.x), core.size))
    return _jitted(task, lambda weights, x: nnx.merge(graph, weights)(x, initial_carry=start), weights)


def _jitted(task: Task, layer: Callable[[Any, Any], Any], weights: Any) -> Run:
    """Forward and backward of a function in JAX, compiled."""
    import jax
    import jax.numpy as jnp

    x, dy = (jnp.asarray(t.detach().numpy()) for t in (task.x, task.dy))

    @jax.jit
    def work(weights, x, dy):
        y, pull = jax.vjp(layer, weights, x)
        dweights, dx = pull(dy)
        return y, dx, dweights

    return lambda: jax.block_until_ready(work(weights, x, dy))


# Peers of one step


def onnx_step(task: Task) -> Run:
    """An ONNX graph of one LSTM node, its state fed back through bound buffers."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(_onnx_lstm(task.core), options, providers=["CPUExecutionProvider"])
    size = task.core.size
    x, y = task.x[:1, :1].detach().numpy(), np.zeros((1, 1, 1, size), np.float32)
    states = [[np.zeros((1, 1, size), np.float32) for _ in "hc"] for _ in range(2)]
    turns = []
    for before, after in (states, states[::-1]):
        binding = session.io_binding()
        for name, array in zip(("x", "h", "c"), (x, *before), strict=True):
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in zip(("y", "h_next", "c_next"), (y, *after), strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        turns.append((binding, (y.reshape(size),), x, before, after))  # buffers live as long as what is bound to them
    turn = cycle(turns)

    def step() -> Sequence[np.ndarray]:
        binding, shown, *_ = next(turn)
        session.run_with_iobinding(binding)
        return shown

    return step


def _onnx_lstm(core: Core) -> bytes:
    """One LSTM node with our weights: ONNX orders the gates i o f g."""
    from onnx import TensorProto, checker, helper, numpy_helper

    def ordered(*names: str) -> np.ndarray:
        parts = []
        for name in names:
            i, f, g, o = np.split(getattr(core, name).detach().numpy(), 4)
            parts += [i, o, f, g]
        return np.concatenate(parts)[None]

    def values(**shapes: Sequence[int]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    size, state = core.size, (1, 1, core.size)
    weights = {"w": ordered("weight_ih"), "r": ordered("weight_hh"), "b": ordered("bias_ih", "bias_hh")}
    node = helper.make_node(
        "LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "h_next", "c_next"], hidden_size=size, layout=0
    )
    graph = helper.make_graph(
        [node],
        "step",
        values(x=(1, 1, core.features), h=state, c=state),
        values(y=(1, 1, 1, size), h_next=state, c_next=state),
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


def numba_step(task: Task) -> Run:
    """A step in Python compiled by numba, with the weights by columns and nothing allocated."""
    core: Any = task.core
    x = task.x[0, 0].detach().numpy()
    weights, recurrent = (w.detach().numpy().T.copy() for w in (core.weight_ih, core.weight_hh))
    bias = (core.bias_ih + core.bias_hh).detach().numpy()
    gates, h, c = (np.zeros(n, np.float32) for n in (4 * core.size, core.size, core.size))
    step = _numba_lstm()
    return lambda: (step(x, weights, recurrent, bias, gates, h, c),)


@cache
def _numba_lstm() -> Callable[..., np.ndarray]:
    import numba

    one = np.float32(1)

    @numba.njit(fastmath=True)
    def step(x, weights, recurrent, bias, gates, h, c):
        size = len(h)
        gates[:] = bias
        for k in range(len(x)):
            for j in range(4 * size):
                gates[j] += x[k] * weights[k, j]
        for k in range(size):
            for j in range(4 * size):
                gates[j] += h[k] * recurrent[k, j]
        for j in range(size):
            take, keep = one / (one + np.exp(-gates[j])), one / (one + np.exp(-gates[size + j]))
            c[j] = keep * c[j] + take * np.tanh(gates[2 * size + j])
            h[j] = np.tanh(c[j]) / (one + np.exp(-gates[3 * size + j]))
        return h

    return step


# The table

NN_LSTM, NN_GRU = Peer("nn.LSTM", torch_layer), Peer("nn.GRU", torch_layer)
FLAX_GRU = Peer("flax, jitted", flax_gru, ("jax", "flax"))
LAYER_NORM = (Peer("eager torch", eager_layer_norm), Peer("JAX, jitted", jax_layer_norm, ("jax",)))
STEPS = (Peer("ONNX Runtime", onnx_step, ("onnx", "onnxruntime")), Peer("numba", numba_step, ("numba",)))
OURS_STEP = Peer("ours", stepping)


def cases() -> list[Case]:
    """All rows, with what each must reach."""
    found = []
    musts = {"float32": (3.0, 2.0, 1.4, 1.05), "bfloat16": (4.0, 3.0, 2.2, 2.0)}
    for name, limits in musts.items():
        precision, what = getattr(torch, name), "step" if name == "float32" else "step, bf16 weights"
        for size, must in zip((64, 128, 256, 512), limits, strict=True):
            tolerance = 1e-3 if name == "float32" else 3e-2
            shape = (1, 1, size, size)
            found.append(Case(what, shape, LSTM(size), STEPS, must, OURS_STEP, precision, tolerance))

    def add(
        what: str, spec: Callable[[int], CoreSpec], peers: tuple[Peer, ...], musts: dict[str, float], **options: Any
    ):
        for letter, must in musts.items():
            shape = SHAPES[letter]
            found.append(Case(what, shape, spec(shape[3]), peers, must, **options))

    add("LSTM training", LSTM, (NN_LSTM,), {"A": 0.97, "B": 1.05, "E": 1.15, "S": 1.6})
    add("GRU training", GRU, (NN_GRU,), {"A": 1.7, "D": 6.0, "S": 30.0})
    add("GRU training", GRU, (FLAX_GRU,), {"A": 1.1, "D": 1.4, "S": 1.7})
    add("layer-norm LSTM training", lambda n: LSTM(n, layer_norm=True), LAYER_NORM, {"A": 1.7, "D": 2.8})
    for steps in (1000, 8000):
        lstm = Peer("nn.LSTM", torch_lstm)
        found.append(Case("minGRU training", (8, steps, 128, 128), MinGRU(128), (lstm,), 2.0, tolerance=inf))
    half: dict[str, Any] = {"precision": torch.bfloat16, "tolerance": 5e-2}
    add("LSTM training, bf16", LSTM, (NN_LSTM,), {"A": 1.0, "B": 1.0}, **half)
    add("GRU training, bf16", GRU, (NN_GRU,), {"A": 1.5, "B": 1.5}, **half)
    ends: dict[str, Any] = {"ours": Peer("ours", ragged)}
    add("ragged LSTM training", LSTM, (Peer("padded", padded),), {"D": 1.0}, **ends)
    return found


def bench_cores(only: str = "", quick: bool = False, watch: Watch = silent) -> tuple[list[Row], list[str]]:
    """The rows whose line has `only` in it, and what was left out for want of a module.

    UserError where no row has it.
    """
    chosen = [case for case in cases() if case.matches(only)]
    if not chosen:
        names = ", ".join(dict.fromkeys(case.what for case in cases()))
        raise UserError(f"no row has {only!r} in it; there are {names}")
    rows, missing = [], dict[str, None]()
    with one_thread(), torch.random.fork_rng(devices=[]):
        for number, case in enumerate(chosen):
            watch("measuring", number, len(chosen), f"{case.what} {case.size}")
            absent = {peer.name: [m for m in peer.modules if not _installed(m)] for peer in case.peers}
            missing |= dict.fromkeys(module for modules in absent.values() for module in modules)
            peers = tuple(peer for peer in case.peers if not absent[peer.name])
            if peers:
                rows.append(_row(replace(case, peers=peers), quick))
        watch("measuring", len(chosen), len(chosen))
    return rows, list(missing)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch, and one core for whatever starts threads of its own, where the system can do that."""
    threads, pins = torch.get_num_threads(), hasattr(os, "sched_setaffinity")
    allowed = os.sched_getaffinity(0) if pins else set()
    torch.set_num_threads(1)
    if pins:
        os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if pins:
            os.sched_setaffinity(0, allowed)


@cache
def _installed(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _row(case: Case, quick: bool) -> Row:
    torch.manual_seed(0)
    task = case.task()
    runs = {side.name: side.build(task) for side in (case.ours, *case.peers)}
    check_agreement(case, runs)
    taken = measured(runs, *((0.3, 0.002, 3) if quick else (4.0, 0.02, 7)))
    middle = {name: float(np.median(times)) for name, times in taken.items()}
    ours = case.ours.name
    peer = min((name for name in middle if name != ours), key=lambda name: middle[name])
    low, high = np.percentile(np.divide(taken[peer], taken[ours]), (25, 75))
    ratio = middle[peer] / middle[ours]
    return Row(case.what, case.size, peer, middle[ours], middle[peer], ratio, case.must, (float(low), float(high)))


def check_agreement(case: Case, runs: dict[str, Run]) -> None:
    """RuntimeError where a peer gives another output or gradient of the input than ours; also warms all of them up."""
    for _ in range(3):
        results = {name: [_numbers(array) for array in run()[:2]] for name, run in runs.items()}
        ours = results.pop(case.ours.name)
        for name, theirs in results.items():
            for a, b in zip(ours, theirs, strict=True):
                apart = float(np.abs(a - b).max() / np.abs(b).max())
                if not apart <= case.tolerance:
                    raise RuntimeError(f"{case.what} {case.size}: ours and {name} differ by {apart:.1g}")


def _numbers(array: object) -> np.ndarray:
    return array.detach().float().numpy() if isinstance(array, Tensor) else np.array(array)


def measured(runs: dict[str, Run], seconds: float, block_s: float, least: int) -> dict[str, list[float]]:
    """CPU microseconds a call, run after run in turn, each as often at a time as makes a block of `block_s`."""
    calls = {name: _calls(run, block_s) for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    began = time.process_time()
    while len(next(iter(taken.values()))) < least or time.process_time() - began < seconds:
        for name, run in runs.items():
            taken[name].append(1e6 * _cpu_s(run, calls[name]) / calls[name])
    return taken


def _calls(run: Run, block_s: float) -> int:
    calls = 1
    while _cpu_s(run, calls) < block_s:
        calls *= 2
    return calls


def _cpu_s(run: Run, calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        run()
    return time.process_time() - began


def core_table(rows: Sequence[Row]) -> Table:
    """Table for the terminal; a ratio below what it must be stands in red, its quartiles in brackets."""
    table = Table("what", "shape", "peer", box=None, caption="shape: batch, time, input, hidden; us: CPU microseconds")
    for title in ("ours, us", "peer, us", "ratio", "must"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        times = (f"{value:,.{0 if value >= 100 else 2}f}" for value in (row.ours_us, row.peer_us))
        ratio = f"{row.ratio:.2f} ({row.quartiles[0]:.2f} to {row.quartiles[1]:.2f})"
        must = "" if row.must is None else f"{row.must:g}"
        slow = row.must is not None and row.ratio < row.must
        table.add_row(row.what, row.shape, row.peer, *times, Text(ratio, "red" if slow else ""), must)
    return table
