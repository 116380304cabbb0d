"""Runs an exported model: onnxruntime and NumPy, nothing else.

    python run.py FRAMES [--model step.onnx]

FRAMES is a .npy file of raw steps (steps first), a folder of such files in order of name, or a text. Prints one JSON
object a step: the prediction of each target by name, in the target's own units.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

HERE = Path(__file__).resolve().parent


class Stepping:
    """One sequence: every step takes up where the one before left off."""

    def __init__(self, model: Path):
        self.session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self.about = {k: json.loads(v) for k, v in self.session.get_modelmeta().custom_metadata_map.items()}
        self.input, *self.states = self.session.get_inputs()
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.reset()

    def reset(self) -> None:
        types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
        self.state = {s.name: np.zeros((1, *s.shape[1:]), types[s.type]) for s in self.states}

    def step(self, raw: Any) -> dict[str, float]:
        types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
        x = np.asarray(raw).astype(types[self.input.type]).reshape(1, *self.input.shape[1:])
        out: Any = dict(zip(self.outputs, self.session.run(None, {self.input.name: x, **self.state}), strict=True))
        self.state = {s.name: out[f"next_{s.name}"] for s in self.states}
        return dict(zip(self.about["targets"], out["prediction"][0].tolist(), strict=True))


def steps(place: Path, characters: bool):
    """Raw steps, one after another."""
    if place.is_dir():
        for file in sorted(place.glob("*.npy")):
            yield from np.load(file)
    elif place.suffix == ".npy":
        yield from np.load(place)
    else:
        contents = place.read_bytes()  # Read as text every line end would become the same one.
        try:
            yield from map(ord, contents.decode()) if characters else contents
        except UnicodeDecodeError as error:
            raise SystemExit(f"{place} is not UTF-8 ({error}); convert it") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--model", type=Path, default=HERE / "step.onnx")
    given = parser.parse_args()
    model = Stepping(given.model)
    for raw in steps(given.frames, characters=bool(model.about["characters"])):
        print(json.dumps(model.step(raw)), flush=True)


if __name__ == "__main__":
    main()
