"""Recipes by name: functions from records (none: those of its own source) to a Recipe.

Their docstrings say how to run it and what to expect.

A variant is `replace(steer(), core=GRU(64))`; one of your own is named `path.py:function` on the command line.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import did_you_mean
from ..errors import UserError
from ..plugins import Registry, own_file

if TYPE_CHECKING:
    from ..data.records import Record
    from ..training.recipe import Recipe

Make = Callable[[Sequence["Record"]], "Recipe"]

TWIN = "-twin"
"""Ending of a name: the recipe of the name before it without its core, all else the same."""


class Recipes(Registry[Make]):
    """Recipes by name; `NAME-twin` is NAME without a memory, made by one rule."""

    def __getitem__(self, name: str) -> Make:
        base = name.removesuffix(TWIN)
        return super().__getitem__(name) if name in self.rows or base == name else twin_of(self[base], base)

    def __contains__(self, name: object) -> bool:
        return name in self.rows or (isinstance(name, str) and name.endswith(TWIN) and name[: -len(TWIN)] in self.rows)


def twin_of(make: Make, name: str) -> Make:
    """The recipe of a name without its core: it sees of each step what its encoder shows of it, and no more.

    Of a many to one that is the last step alone. UserError, when it is called, where a recipe has no core of steps.
    """

    def twin(records: Sequence["Record"] = ()) -> "Recipe":
        from ..nn.cores import Memoryless

        recipe = make(records)
        if not hasattr(recipe, "core"):
            raise UserError(f"{name} reads a whole source and has no core of steps, so there is no {name}{TWIN}")
        return replace(recipe, core=Memoryless())  # pyright: ignore[reportCallIssue]

    twin.__doc__ = f"{name} without its core: the twin that has no memory.\n\nCommand: `steersman train {name}{TWIN}`"
    return twin


RECIPES = Recipes(
    {
        "steer": ("steer.recipes:steer", "CNN + LSTM that steers from one picture a step, beside the one before."),
        "steer-robust": (
            "steer.recipes:steer_robust",
            "`steer` trained under noise, other light, late actions, slippery roads, blackouts and new colours.",
        ),
        "steer-frame": (
            "steer.recipes:steer_frame",
            "The same CNN on each picture alone: what there is without a memory.",
        ),
        "steer-stack": ("steer.recipes:steer_stack", "The same CNN on the last four pictures at once."),
        "steer-window": (
            "steer.recipes:steer_window",
            "CNN + LSTM over the last ten pictures, from a zero state at every step: the Challenge 2 winners' way.",
        ),
        "steer-flow": (
            "steer.recipes:steer_flow",
            "CNN + LSTM on the differences between the last three pictures: what moves, not what is there.",
        ),
        "steer-komanda": (
            "steer.recipes:steer_komanda",
            "Convolutions over space and time, then an LSTM that is fed its own last prediction.",
        ),
        "steer-pretrained": (
            "steer.recipes:steer_pretrained",
            "An LSTM on a CNN that was trained on photographs, its classifier cut off; it stands still at first.",
        ),
        "steer-cfc": (
            "steer.recipes:steer_cfc",
            "The CNN with a closed-form continuous-time core in the place of the LSTM (Hasani et al. 2022).",
        ),
        "pendulum": (
            "pendulum.recipes:pendulum",
            "LSTM that swings up a pendulum and balances it, from its angle alone.",
        ),
        "pendulum-frame": (
            "pendulum.recipes:pendulum_frame",
            "The same on each angle alone: what there is without a memory.",
        ),
        "forecast": ("series.recipes:forecast", "Columns of a table, some steps ahead, at every step."),
        "classify": (
            "series.recipes:classify",
            "The class, or a quantity, of each whole series: records, measurements, anything; many to one.",
        ),
        "label": ("series.recipes:label", "A class, or a quantity, at every step of a series; many to many."),
        "listen": (
            "listen.recipes:listen",
            "Which class a sound is of, such as the word that is spoken; many to one.",
        ),
        "song": (
            "song.recipes:song",
            "What sounds next: music learned a pitch at a time; then `steersman compose RUN` goes on with a piece.",
        ),
        "count": (
            "count.recipes:count",
            "People in every frame of a camera's film: what stands before the background, and a GRU; many to many.",
        ),
        "count-frame": (
            "count.recipes:count_frame",
            "The same on each frame alone: what there is without a memory.",
        ),
        "glucose": (
            "glucose.recipes:glucose",
            "Glucose up to an hour ahead, from a sensor's readings each five minutes, with the clinic's measures.",
        ),
        "market": (
            "market.recipes:market",
            "Whether the next day's price is higher than today's: most likely nobody can tell.",
        ),
        "ticks": (
            "market.recipes:ticks",
            "Where an order book's price goes in the next events: up, down or nowhere.",
        ),
        "diagnose": (
            "diagnose.recipes:diagnose",
            "How a stay in intensive care ends, from what was measured in its first 48 hours; many to one.",
        ),
        "digits": (
            "digits.recipes:digits",
            "Which of ten digits an 8x8 picture shows, read one row a step; many to one.",
        ),
        "glance": (
            "glance.recipes:glance",
            "What a picture shows, told from a few glimpses at it; the model says where it looks next. Many to one.",
        ),
        "draw": (
            "draw.recipes:draw",
            "Black and white pictures drawn stroke by stroke, by a variational autoencoder with attention.",
        ),
        "chars": ("text.recipes:chars", "The next character of a text; then `steersman sample RUN` writes on."),
        "classify-text": (
            "text.classify:classify_text",
            "The class of a text by its characters: its language, its mood; many to one.",
        ),
        "bytes": ("text.recipes:bytes_", "The next byte of any file."),
        "echo": ("echo.recipes:echo", "Repeat one of four noisy inputs three steps late; many to many."),
        "echo-inputs": (
            "echo.recipes:echo_inputs",
            "Two streams with a clock each, and a number that is given once a record; many to many.",
        ),
        "echo-gaps": (
            "echo.recipes:echo_gaps",
            "Readings of which most are missing, at irregular moments: what was read last, and when; many to many.",
        ),
        "echo-vector": (
            "echo.recipes:echo_vector",
            "Repeat three of four noisy inputs two steps late, as one target of three numbers; many to many.",
        ),
        "translate": (
            "translate.recipes:translate",
            "Sentences into another language: a bidirectional encoder, and a decoder that looks back at what was read.",
        ),
        "vqa": (
            "sight.recipes:vqa",
            "An answer to a question about a picture: a CNN's grid, its cells scaled by the question.",
        ),
        "vqa-question": (
            "sight.recipes:vqa_question",
            "The same with the question alone: what can be guessed without a look.",
        ),
        "vqa-picture": (
            "sight.recipes:vqa_picture",
            "The same with the picture alone: what can be guessed without the question.",
        ),
        "narrate": (
            "sight.recipes:narrate",
            "A sentence about a film: frames go into a CNN and a core, then words come out.",
        ),
        "narrate-frame": (
            "sight.recipes:narrate_frame",
            "The same on each frame alone: the CNN without a core over the frames.",
        ),
        "caption": (
            "sight.recipes:caption",
            "A caption for a photograph: a pretrained CNN's grid, looked at word by word (Xu et al. 2015).",
        ),
    },
    room="recipes",
)
"""Recipes by name, each with the first line of its docstring; one is imported when it is asked for."""


def make_of(name: str) -> Make:
    """The function of a recipe of the package, or of `path.py:function`. UserError where there is none."""
    if name in RECIPES:
        return RECIPES[name]
    path, _, function = name.rpartition(":")
    if path.endswith(".py") and function.endswith(TWIN):
        return twin_of(make_of(name.removesuffix(TWIN)), name.removesuffix(TWIN))
    if not path.endswith(".py"):
        raise UserError(f"no recipe {name!r}{did_you_mean(name, RECIPES)}; there are {', '.join(RECIPES)}")
    module = own_file(path)
    if not callable(getattr(module, function, None)):
        raise UserError(f"{path} has no function {function!r}; name a recipe of your own as path.py:function")
    return getattr(module, function)
