"""Weights and checkpoints: tensors in safetensors, the rest JSON; nothing is unpickled."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from ..files import folder_written_whole, inside, plain, read_file, write_file


def write_json(path: Path, value: Any) -> None:
    write_file(path, json.dumps(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds; UserError where the file is missing, damaged, or no plain file."""
    try:
        return json.loads(read_file(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a whole run; train it again") from None
    except UserError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} can't be read ({error}); take another copy of the run") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors by name; weights that are tied stand in the file under each of their names."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        place = kept.untyped_storage().data_ptr()
        apart[name] = kept.clone() if place in seen else kept  # safetensors takes no two with one memory.
        seen.add(place)
    write_file(path, save(apart))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name; UserError where the file is missing, damaged, or no plain file."""
    with _tensors_of(path):
        return load_file(plain(path))


MOST_CALLS = 20_000
"""Calls of PyTorch with which a model is built; the largest here takes some hundreds."""
MOST_STATE = 2**26
"""Numbers in the state of one row."""
MOST_BESIDE = 2**22
"""Numbers that are held, beside those of the file, while a model is built."""


class _Bounded(TorchFunctionMode):
    """Refuses tensors beyond so many numbers in all before memory is taken for them, and calls without end."""

    SHAPED = frozenset(
        getattr(place, name)
        for place, names in (
            (torch, "empty zeros ones full rand randn arange linspace eye"),
            (Tensor, "new_empty new_zeros new_ones new_full"),
        )
        for name in names.split()
    )

    def __init__(self, most: int):
        super().__init__()
        self.left, self.calls = most, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        if func in self.SHAPED:
            self.left -= math.prod(n for n in _whole((args, (kwargs or {}).get("size", ()))) if n > 0)
        if self.left < 0 or self.calls > MOST_CALLS:
            raise OverflowError("it is larger than its file of weights")
        return func(*args, **(kwargs or {}))


def _whole(sizes: object) -> Iterator[int]:
    """The whole numbers in arguments."""
    if isinstance(sizes, int):
        yield sizes
    elif isinstance(sizes, tuple | list):
        for one in sizes:
            yield from _whole(one)


def built_for(build: Callable[[], Any], path: Path) -> Any:
    """The model that `build` makes, for a file of weights.

    UserError where it would be another one: sizes are not believed, and no memory is taken that the file is not worth.
    """
    kept = sum(math.prod(shape) for shape in shapes(path).values())
    try:
        with _Bounded(4 * kept + MOST_BESIDE):
            model = build()
        with _Bounded(MOST_STATE):
            model.initial(1)
    except UserError:
        raise
    except (OverflowError, MemoryError, RecursionError, RuntimeError, TypeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{path} doesn't fit the model that its config describes ({detail})") from None
    return model


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a file's tensors by name, without the tensors. UserError where the file is missing or damaged."""
    with _tensors_of(path), safe_open(plain(path), "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _tensors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a whole run; train it again") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} can't be read ({error}); take another copy of the run") from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts weights and normaliser into a model. UserError where they don't fit it."""
    try:
        model.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{path} doesn't fit the model that its config describes ({detail})") from None


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which of some tensors hold NaN or infinity, in words; empty where none does."""
    bad = {name: int((~t.isfinite()).sum()) for name, t in tensors.items()}
    bad = {name: number for name, number in bad.items() if number}
    if not bad:
        return ""
    name, number = next(iter(bad.items()))
    others = f", and some of {len(bad) - 1} other tensor{'s' * (len(bad) > 2)}" if len(bad) > 1 else ""
    return f"{number} of the {tensors[name].numel()} numbers of {name} are NaN or infinite{others}"


class Checkpoints:
    """`step-N` folders below one folder; the last two are kept. One process at a time may write them."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, oldest first."""
        names = [p.name for p in self.folder.glob("step-*") if p.is_dir() and not p.is_symlink()]
        return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-[0-9]{8,18}", name))

    def write(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict) -> None:
        """One file a name in `tensors`, and `state.json`. UserError on a full disk: older ones stay good."""
        inside(self.folder, self.folder.parent)
        with folder_written_whole(self.folder / f"step-{step:08d}", "step") as folder:
            for name, group in tensors.items():
                write_tensors(folder / f"{name}.safetensors", group)
            write_json(folder / "state.json", state)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.folder / f"step-{old:08d}", ignore_errors=True)

    def read(self, step: int) -> tuple[dict[str, dict[str, Tensor]], dict]:
        """What `write` was given."""
        folder = self.folder / f"step-{step:08d}"
        tensors = {p.stem: read_tensors(p) for p in sorted(folder.glob("*.safetensors"))}
        return tensors, read_json(folder / "state.json")


def last_weights(run: Path) -> Path | None:
    """The newest file of weights in a run's folder; None before there is one."""
    checkpoints = Checkpoints(run / "checkpoints")
    folders = [checkpoints.folder / f"step-{step:08d}" for step in checkpoints.steps()[-1:]]
    return next((f for folder in (*folders, run) if (f := folder / "model.safetensors").exists()), None)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of the optimiser, flat: `number of the parameter . name of the moment`."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": value for i, moments in state.items() for name, value in moments.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
