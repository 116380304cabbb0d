"""Recipes by name: functions from records (none: those of its own source) to a Recipe.

Their docstrings say how to run it and what to expect.

A variant is `replace(steer(), core=GRU(64))`; one of your own is named `path.py:function` on the command line.
"""

from collections.abc import Callable, Sequence

from ..data.records import Record
from ..training.recipe import Recipe
from .digits.recipes import digits
from .echo.recipes import echo
from .steer.recipes import (
    steer,
    steer_cfc,
    steer_flow,
    steer_frame,
    steer_komanda,
    steer_pretrained,
    steer_stack,
    steer_window,
)
from .text.recipes import bytes_, chars
from .translate.recipes import translate

RECIPES: dict[str, Callable[[Sequence[Record]], Recipe]] = {
    "steer": steer,
    "steer-frame": steer_frame,
    "steer-stack": steer_stack,
    "steer-window": steer_window,
    "steer-flow": steer_flow,
    "steer-komanda": steer_komanda,
    "steer-pretrained": steer_pretrained,
    "steer-cfc": steer_cfc,
    "digits": digits,
    "chars": chars,
    "bytes": bytes_,
    "echo": echo,
    "translate": translate,
}
