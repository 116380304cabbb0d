"""Command of this room."""

from dataclasses import dataclass

from ..console import OUT, parsed
from ..files import locked
from .cache import MOST_BYTES, cache_folder, kept_files


@dataclass(frozen=True)
class Cache:
    """Says where prepared pictures are kept and how much room they take; they are made anew when they are gone."""

    clear: bool = False
    """Delete them, and nothing else that lies there."""


def cache(arguments: list[str]) -> None:
    """say where prepared pictures are kept, and clear them away"""
    options = parsed(Cache, arguments, "cache")
    folder = cache_folder()
    if options.clear and folder.is_dir():
        with locked(folder):
            size = _size(clear=True)
        OUT.print(f"cleared: {size / 2**20:,.0f} MiB in {folder}")
        return
    OUT.print(f"cache: {folder}")
    OUT.print(f"{len(kept_files(folder))} files, {_size() / 2**20:,.0f} of at most {MOST_BYTES / 2**20:,.0f} MiB")


def _size(clear: bool = False) -> int:
    """Bytes of all that is kept; it is deleted on the way, where that is asked for."""
    total = 0
    for path in kept_files(cache_folder()):
        total += path.lstat().st_size
        if clear:
            path.unlink(missing_ok=True)  # Who has it mapped may go on reading.
    return total
