"""Specs: frozen dataclasses that name their parts, and their way to JSON and back."""

import dataclasses
import difflib
import functools
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from .errors import UserError
from .plugins import PARTS, part


class Spec:
    """A frozen dataclass of plain values and other specs; known to JSON by the name of its class.

    Values are checked by the types of the fields when it is made. Lists become tuples, and numbers of NumPy plain ones.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
    KINDS: ClassVar[dict[str, type["Spec"]]] = {}
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Smallest and largest value of a field, or of each item of a tuple."""

    def __init_subclass__(cls):
        known = Spec.KINDS.get(cls.__name__, cls)
        if known.__module__ != cls.__module__:
            raise UserError(f"{cls.__name__} is the name of a spec in {known.__module__} already; choose another")
        Spec.KINDS[cls.__name__] = cls

    def __post_init__(self):
        hints = _hints(type(self))
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            fitting = value(given, hints[field.name], f"{type(self).__name__}.{field.name}")
            if fitting is not given:
                object.__setattr__(self, field.name, fitting)
        check_bounds(self, lambda name: f"{type(self).__name__}: {name}")


LARGEST = 2**63 - 1
"""Largest whole number of a field; what counts or draws takes no larger ones."""


def check_bounds(options: Any, called: Callable[[str], str]) -> None:
    """Raises UserError where a number of a dataclass is beyond its `BOUNDS`; a seed is never below 0.

    Without bounds it must be finite, and a whole one at most LARGEST.
    """
    bounds = {"seed": (0, math.inf)} | getattr(options, "BOUNDS", {})
    for field in dataclasses.fields(options):
        held = getattr(options, field.name)
        low, high = bounds.get(field.name, (-math.inf, math.inf))
        for number in held if isinstance(held, tuple) else (held,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if not low <= number <= high:
                limits = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise UserError(f"{called(field.name)} must be {limits}, not {number}")
            if isinstance(number, int) and abs(number) > LARGEST:
                raise UserError(f"{called(field.name)} must be at most {LARGEST}, not {str(number)[:60]}")
            if not math.isfinite(number):
                raise UserError(f"{called(field.name)} must be a finite number, not {number}")


def to_json(value: object) -> Any:
    """Specs become `{"kind": name, ...fields}`, tuples become lists; the rest is JSON already, or a UserError."""
    if isinstance(value, Spec):
        fields = dataclasses.fields(value)
        return {"kind": type(value).__name__} | {f.name: to_json(getattr(value, f.name)) for f in fields}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    if isinstance(value, dict):
        return {name: to_json(v) for name, v in value.items()}
    if not isinstance(value, str | int | float | None):
        raise UserError(
            f"a {type(value).__name__} can't be written in a config.json; give a spec plain values and specs"
        )
    return value


@functools.cache
def _hints(kind: type[Spec]) -> dict[str, Any]:
    """Types of a spec's fields by name."""
    try:
        return get_type_hints(kind)
    except NameError as error:
        raise UserError(
            f"{kind.__name__}: the type of a field is not known ({error}); define it in the module"
        ) from None


def from_json(data: object, where: str = "config") -> Any:
    """The spec that `to_json` wrote. UserError names the field that is unknown, missing or of a wrong type."""
    if not (isinstance(data, dict) and isinstance(data.get("kind"), str)):
        raise UserError(f"{where}: expected an object with a `kind`, found {str(data)[:60]!r}")
    kind = _spec(data["kind"])
    if kind is None or not dataclasses.is_dataclass(kind):
        raise UserError(
            f"{where}: unknown kind {data['kind']!r}{did_you_mean(data['kind'], Spec.KINDS)}; "
            "if it comes from a file of your own, import that first (steersman ... --import path.py)"
        )
    hints = _hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    for name in data.keys() - names - {"kind"}:
        raise UserError(f"{where}.{name}: {kind.__name__} has no such field{did_you_mean(name, names)}")
    values = {n: value(data[n], hints[n], f"{where}.{n}") for n in names & data.keys()}
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None


def _spec(kind: str) -> type[Spec] | None:
    """The spec of that name; those of the package are imported until it is found."""
    for place in PARTS:
        if kind in Spec.KINDS:
            break
        part(place)
    return Spec.KINDS.get(kind)


def did_you_mean(name: str, known) -> str:
    """`; did you mean 'steer'?` where something known is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def value(data: Any, hint: Any, where: str) -> Any:
    """JSON of one field, or what stands for it in Python, as what its annotation says. UserError where it is else."""
    origin, args = get_origin(hint), get_args(hint)
    either = args if origin in (types.UnionType, typing.Union) else (hint,)
    if hasattr(data, "tolist") and type(data) not in either:
        data = data.tolist()  # NumPy's numbers and arrays.
    if isinstance(data, dict) and isinstance(data.get("kind"), str):
        kinds = tuple(h for h in either if isinstance(h, type) and issubclass(h, Spec))
        kind = Spec.KINDS.get(data["kind"])
        if kind is not None and not issubclass(kind, kinds):  # Else its fields would be found fault with.
            _check(data["kind"], False, _named(either), where)
        spec = from_json(data, where)
        return spec if isinstance(spec, kinds) else _check(data["kind"], False, _named(either), where)
    if len(either) > 1:
        return _either(data, either, where)
    if origin is Literal:
        return _check(data, data in args, hint, where)
    if origin is tuple:
        if isinstance(data, str):
            raise UserError(f"{where}: expected a tuple, found {data[:60]!r}; one of a single item is written (item,)")
        _check(data, isinstance(data, list | tuple), hint, where)
        inner = args[:1] * len(data) if args[-1] is Ellipsis else args
        _check(data, len(inner) == len(data), hint, where)
        return tuple(value(v, h, f"{where}[{i}]") for i, (v, h) in enumerate(zip(data, inner, strict=True)))
    if origin is dict:
        _check(data, isinstance(data, dict), hint, where)
        return {name: value(v, args[1], f"{where}.{name}") for name, v in data.items()}
    if hint is tuple and isinstance(data, list):
        return tuple(data)
    if hint is float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            return _check(data, False, "a finite number", where)
        if not abs(data) <= sys.float_info.max:
            raise UserError(f"{where} must be a finite number, not {str(data)[:60]}")
        return data if isinstance(data, float) else float(data)
    if getattr(hint, "_is_protocol", False):
        return data
    if isinstance(hint, type) and hint is not type(None):
        _check(data, isinstance(data, hint) and not (hint is int and isinstance(data, bool)), hint, where)
    return _check(data, hint is not type(None) or data is None, hint, where)


_JSON: dict[object, tuple[type, ...]] = {tuple: (list, tuple), dict: (dict,)}
"""What holds a container of each kind, in JSON and in Python."""


def _either(data: Any, hints: tuple, where: str) -> Any:
    fitting = [hint for hint in hints if isinstance(data, _JSON.get(get_origin(hint), ()))]
    if len(fitting) == 1:  # Only one may be meant: what is wrong inside is said.
        return value(data, fitting[0], where)
    for hint in hints:
        try:
            return value(data, hint, where)
        except UserError:
            continue
    return _check(data, False, _named(hints), where)


def _named(hints: tuple) -> str:
    return " or ".join(getattr(hint, "__name__", str(hint)) for hint in hints)


def _check(data: Any, good: bool, hint: Any, where: str) -> Any:
    if not good:
        raise UserError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {str(data)[:60]!r}")
    return data
