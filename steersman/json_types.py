"""Names of what stands in JSON: objects, read or made, and the rows of a log."""

from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]
"""Plain numbers, strings, lists and dicts by name; None where there is no value."""
JsonMapping = Mapping[str, Any]
"""One that is only looked at."""
LogRow = dict[str, Any]
"""A line of a log.jsonl: figures of one step by name."""
