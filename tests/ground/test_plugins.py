"""What is imported, and when: nothing before it is asked for, and then whatever a run may name."""

import inspect
import json
import subprocess
import sys
from types import ModuleType

import pytest

import steersman
from steersman.__main__ import COMMANDS
from steersman.recipes import RECIPES

HEAVY = ("torch", "numpy", "pyarrow", "av", "matplotlib", "PIL", "sklearn", "gymnasium", "tyro", "rich", "safetensors")


def fresh(code: str) -> str:
    """What some lines of Python print in an interpreter of their own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(code: str, *names: str) -> list[str]:
    """Which of these modules some lines of Python import."""
    told = f"\nimport sys, json; print(json.dumps([m for m in {names} if m in sys.modules]))"
    return json.loads(fresh(code + told).splitlines()[-1])


def test_the_package_alone_imports_nothing():
    assert imported("import steersman; assert set(steersman.__all__) <= set(dir(steersman))", *HEAVY) == []


@pytest.mark.parametrize("line", ["", "--help", "-V", "recipes", "recipes --help"])
def test_what_needs_no_model_imports_none(line):
    assert imported(f"from steersman.__main__ import main; main({line.split()})", *HEAVY) == []


def test_a_script_that_a_shell_reads_at_its_start_is_made_without_torch():
    assert imported("from steersman.__main__ import main; main(['completion', 'bash'])", *HEAVY[2:], "torch") == []


def test_the_help_of_a_recipe_needs_no_reader_simulator_or_plot():
    code = f"""
from contextlib import suppress
from steersman.__main__ import main
for name in {list(RECIPES)}:
    with suppress(SystemExit):
        main(["train", name, "--help"])
"""
    assert imported(code, "torch", *HEAVY[2:8]) == ["torch"]


def test_every_public_name_is_found_and_no_other():
    assert all(getattr(steersman, name) is not None for name in steersman.__all__)
    assert steersman.Run.__name__ == "Run"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = steersman.nonsense


@pytest.mark.parametrize("registry", [COMMANDS, RECIPES], ids=["commands", "recipes"])
def test_a_line_of_help_is_the_first_of_the_docstring(registry):
    for name, (_, line) in registry.rows.items():
        assert line == (inspect.getdoc(registry[name]) or "").split("\n")[0], name


def test_a_function_shadows_no_module():
    for name in ("steer", "digits", "echo", "text", "translate"):
        assert isinstance(getattr(__import__(f"steersman.recipes.{name}").recipes, name), ModuleType)


def test_every_spec_of_the_package_is_found_by_one_who_imported_little():
    kinds = (
        fresh("""
import contextlib, dataclasses, importlib, pkgutil, steersman
from steersman.config import Spec
for module in pkgutil.walk_packages(steersman.__path__, "steersman."):
    with contextlib.suppress(ImportError):  # of what is not installed
        importlib.import_module(module.name)
own = [kind for kind in Spec.KINDS.values() if kind.__module__.startswith("steersman.")]
print(*(kind.__name__ for kind in own if dataclasses.is_dataclass(kind)))
""")
        .splitlines()[-1]
        .split()
    )  # Pygame says hello first.
    assert len(kinds) > 50
    missing = fresh(f"""
from steersman.config import Spec, UserError, from_json
assert not Spec.KINDS
for kind in {kinds}:
    try:
        from_json({{"kind": kind}})
    except UserError as error:
        if "unknown kind" in str(error):
            print(kind)
""")
    assert missing == ""


def test_a_run_opens_where_only_runs_were_imported():
    said = fresh("from steersman.training.run import Run, find; print(Run.open(find('steer')).recipe.core)")
    assert said.startswith("LSTM")
