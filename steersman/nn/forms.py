"""Other forms of a model's parts: one step as operators of an ONNX graph, or compiled.

A form is a function beside the part's class, found by that class; a file of the user's own adds its own:

    @onnx_form(MyCore)
    def my_graph(graph: Graph, core: MyCore, x: str, state: tuple) -> tuple[str, tuple]: ...
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

Form = TypeVar("Form", bound=Callable[..., Any])


class NoForm(UserError):
    """A part has no such form, and its message says why."""


class Forms:
    """Forms of one kind by the class they are of."""

    def __init__(self, name: str, refused: str):
        """`refused` is what can't be done with a part that has none."""
        self.name, self.refused = name, refused
        self.known: dict[type, Callable[..., Any]] = {}

    def __call__(self, *kinds: type) -> Callable[[Form], Form]:
        """Decorator of the function that gives the form of these classes."""

        def register(function: Form) -> Form:
            self.known |= dict.fromkeys(kinds, function)
            return function

        return register

    def of(self, part: object) -> Callable[..., Any]:
        """The form of a part's class, or of the nearest one above it that computes the same; NoForm without one."""
        kind = type(part)
        found = next((above for above in kind.__mro__ if above in self.known), None)
        if found is None:
            known = ", ".join(known.__name__ for known in self.known)
            raise NoForm(f"{kind.__name__} {self.refused}: it has no {self.name} here; there are {known}")
        changed = overridden(kind, found)
        if changed:
            raise NoForm(
                f"{kind.__name__} {self.refused}: its `{'`, `'.join(changed)}` is its own, and the {self.name} of "
                f"{found.__name__} would compute another result; register one for {kind.__name__}"
            )
        return self.known[found]


ASIDE = {"below", "cdf", "check", "crps", "directions", "fed", "gates", "layers", "log_likelihood", "log_prob", "loss",
         "memory", "pretrained", "quantiles", "remembers", "said", "sample", "shares", "state_names", "step_gates",
         "usual"}  # fmt: skip
"""Methods that change no prediction."""


def overridden(kind: type, above: type) -> list[str]:
    """Methods of `above` that a class below it replaces, and with them what it computes."""
    below = [k for k in kind.__mro__[: kind.__mro__.index(above)] if k not in above.__mro__]
    own = {name for k in below for name, value in vars(k).items() if callable(value) or isinstance(value, _METHODS)}
    house = {name for k in above.__mro__ if k not in nn.Module.__mro__ for name in vars(k)} | {"forward"}
    return sorted(name for name in own & house - ASIDE if not name.startswith("__"))


_METHODS = (property, classmethod, staticmethod)

onnx_form = Forms("form in ONNX", "can't be exported")
"""Forms of cores: `(graph, core, input, state) -> (output, state)`; of encoders: `(graph, encoder, raw step, state) ->
(feature, state)`; of models that tell their encoder something: `(graph, model, core's output, encoder's state) ->
encoder's state`; of pixels: `(graph, encoder, raw step) -> picture`; of heads: `(graph, head, feature) -> outputs as
(name, type, shape)`."""
native_form = Forms("compiled form", "can't be compiled")
"""Forms of cores: `(core, whether its weights are halves) -> a layer of kernels.native`; of encoders of numbers and of
heads the same, in float32: a step's numbers to a feature, and a feature to estimates or scores of classes."""
row_form = Forms("form in NumPy", "can't be stepped without PyTorch")
"""Forms of encoders of numbers: `(encoder) -> step`, where `step(row, elapsed_s, out)` writes a row's features and
remembers what the next needs, NaN a number that is missing; of heads: `(head, levels) -> read`, where `read(feature)`
gives the chance of each class, or a row a target: its estimate, then its quantiles at those levels of probability."""


Value = str | Tensor | np.ndarray | np.generic
"""The name of what a node gives, or a constant."""


class Graph:
    """Nodes and constants of an ONNX graph as they are added; a value is known by its name, a tensor is a constant."""

    def __init__(self):
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.part = ""
        """What the names of nodes begin with."""

    def op(self, kind: str, *inputs: Value, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """The name of what it gives, or a list of them where it gives several."""
        from onnx import helper

        own = f"{self.part}/{kind}_{len(self.nodes)}"
        out = [name or own] if outputs == 1 else [f"{own}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, [self.known(v) for v in inputs], out, own, **attributes))
        return out[0] if outputs == 1 else out

    def known(self, value: Value) -> str:
        from onnx import numpy_helper

        if isinstance(value, str):
            return value
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        name = f"{self.part}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def total(self, first: str, *others: str) -> str:
        for other in others:
            first = self.op("Add", first, other)
        return first

    def linear(self, x: str, weight: Tensor, *bias: Value) -> str:
        return self.op("Gemm", x, weight, *bias, transB=1)

    def joined(self, x: str, h: str, weight: Tensor, recurrent: Tensor, bias: Value | None = None) -> str:
        """W x + U h + b as one product."""
        both = self.op("Concat", x, h, axis=1)
        return self.linear(both, torch.cat((weight, recurrent), 1), *(() if bias is None else (bias,)))

    def split(self, x: str, parts: int) -> list[str]:
        return self.op("Split", x, outputs=parts, axis=1, num_outputs=parts)

    def floats(self, x: str) -> str:
        return self.op("Cast", x, to=1)

    def mix(self, share: Value, one: str, other: str) -> str:
        """share * one + (1 - share) * other."""
        return self.total(other, self.op("Mul", share, self.op("Sub", one, other)))
