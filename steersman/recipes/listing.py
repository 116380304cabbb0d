"""The command `recipes`: their names, or one of them in full; the list imports none."""

import inspect

from ..errors import UserError
from . import RECIPES, make_of

HELP = """usage: steersman recipes [RECIPE]

Lists the recipes, or shows one in full: by its name, or path.py:function for one of your own."""


def recipes(arguments: list[str]) -> None:
    """list the recipes"""
    if any(word in ("-h", "--help") for word in arguments):
        print(HELP)
        return
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        raise UserError(f"recipes takes one name, not {' '.join(arguments)}: steersman recipes {next(iter(RECIPES))}")
    print(inspect.getdoc(make_of(arguments[0])) or arguments[0] if arguments else RECIPES.table())
