"""Weights and checkpoints: tensors in safetensors, the rest JSON; nothing is unpickled."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import UserError
from ..files import disk_error, sync_folder, write_file


def write_json(path: Path, value: Any) -> None:
    write_file(path, json.dumps(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds; UserError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a whole run; train it again") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} can't be read ({error}); take another copy of the run") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    write_file(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name; UserError where the file is missing or damaged."""
    try:
        return load_file(path)
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
    """`step-N` folders below one folder; the last two are kept."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, oldest first."""
        names = [p.name.removeprefix("step-") for p in self.folder.glob("step-*") if p.is_dir()]
        return sorted(int(n) for n in names if n.isdigit())

    def write(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict) -> None:
        """One file a name in `tensors`, and `state.json`. UserError on a full disk: older ones stay good."""
        temporary, final = self.folder / f"tmp-{step}", self.folder / f"step-{step:08d}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, group in tensors.items():
                write_tensors(temporary / f"{name}.safetensors", group)
            write_json(temporary / "state.json", state)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        except OSError as error:
            raise disk_error(error, final) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(self.folder)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.folder / f"step-{old:08d}", ignore_errors=True)

    def read(self, step: int) -> tuple[dict[str, dict[str, Tensor]], dict]:
        """What `write` was given."""
        folder = self.folder / f"step-{step:08d}"
        tensors = {p.stem: read_tensors(p) for p in sorted(folder.glob("*.safetensors"))}
        return tensors, read_json(folder / "state.json")


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
