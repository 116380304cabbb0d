"""Imports between the package's own modules, also those inside functions, which nothing runs at once."""

import ast
import importlib.util
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "steersman"
FILES = sorted(PACKAGE.rglob("*.py"))


def own_imports(tree: ast.AST, package: str) -> list[tuple[str, str]]:
    """Pairs of a module and a name that is taken from it, of the imports that stay in the package."""
    return [
        (importlib.util.resolve_name("." * node.level + (node.module or ""), package), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    ]


def place(module: str) -> Path:
    return PACKAGE.parent / Path(*module.split("."))


def exists(module: str) -> bool:
    here = place(module)
    return here.with_suffix(".py").exists() or here.is_dir() or any(here.parent.glob(f"{here.name}*.so"))


def holds(module: str, name: str) -> bool:
    """A submodule, or a name that the module's text mentions."""
    path = place(module)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return exists(f"{module}.{name}") or not path.exists() or name in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_import_of_the_package_leads_somewhere(path):
    package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    imports = own_imports(ast.parse(path.read_text()), package)
    assert [f"{module}: {name}" for module, name in imports if not (exists(module) and holds(module, name))] == []
