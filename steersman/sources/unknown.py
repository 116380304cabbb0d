"""What a path seems to be that no reader takes, and what to do with it."""

import re
from pathlib import Path

from . import tables
from .csv_tables import header
from .safety import MARKS, SOUNDS, entries, head, within
from .text import is_table

HEAD = 2**16
LOOKED_AT = 20
"""Files of a folder that are looked at."""
BELOW = 2
"""Levels of folders in which pictures and sounds are looked for."""
UNPACK = "unpack it and give the folder that comes out"
MAGIC = {
    b"SQLite format 3\0": ("an SQLite database", "if it is a bag of ROS 2, give the folder with its metadata.yaml"),
    b"PK\3\4": ("a zip archive, or arrays of NumPy", UNPACK),
    b"\x1f\x8b": ("a gzip archive", UNPACK),
    b"BZh": ("a bzip2 archive", UNPACK),
    b"\xfd7zXZ": ("an xz archive", UNPACK),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"\x93NUMPY": ("an array of NumPy", "write it as a CSV with a column steering, beside its pictures"),
    b"\x89HDF": ("an HDF5 file", "give the folder of its dataset"),
    b"PAR1": ("a Parquet file", "give the folder of its dataset"),
    b"#ROSBAG": ("a ROS 1 bag", "give it the ending .bag"),
    b"\x89MCAP": ("an MCAP log", "give it the ending .mcap"),
}
"""What files begin with, what they are then, and what to do."""


def seems(path: Path) -> str:
    """What a file or folder seems to be and what to do, a clause each; "" where nothing is known of it."""
    return _folder(path) if path.is_dir() else _file(path)


def _file(path: Path) -> str:
    start = head(path, HEAD)
    if path.suffix.lower() in MARKS:
        return "it seems to be a picture; give the folder of its drive, with a table that names it"
    if path.suffix.lower() in SOUNDS:
        return f"it seems to be a sound; {FOR_SOUNDS.format(path.parent)}"
    if tables.detect(path) and path.suffix.lower() not in (".csv", ".tsv"):
        return f"it seems to be a table; {FOR_TABLES.format(path)}"
    for mark, (what, do) in MAGIC.items():
        if start.startswith(mark):
            return f"it seems to be {what}; {do}"
    if b"\0" in start:
        return "it seems to hold bytes that are no text; if it is part of a log, give the log's folder"
    text = start.decode(errors="replace")
    if re.match(r"\s*(\{\s*\"|\[\s*[\[{\"\d-])", text):
        return "it seems to be JSON; if it is part of a log, give the log's folder"
    if path.suffix.lower() in (".csv", ".tsv") or is_table(text):
        columns = ", ".join(header(path))[:200]
        return f"it seems to be a table ({columns}) {NO_DRIVE.format(path)}"
    return ""


FOR_SOUNDS = "steersman train listen --data {0} tells sounds apart, a class a folder or by their names"
FOR_TABLES = (
    "steersman train forecast --data {0} learns what comes next in it, train classify and train label a class, "
    "train classify-text that of a text a row"
)
NO_DRIVE = (
    "without a column known for the wheel, or without pictures or a video beside it; "
    + FOR_TABLES
    + "; the columns of a drive can be named: {0}?steer=COLUMN&picture=COLUMN"
)


def _folder(path: Path) -> str:
    if found := [file for file in entries(path) if file.suffix.lower() in (".csv", ".tsv")]:
        columns = ", ".join(header(found[0]))[:200]
        return f"{found[0]} is a table ({columns}) {NO_DRIVE.format(path)}"
    if picture := next((file for file in within(path, BELOW) if file.suffix.lower() in MARKS), None):
        return (
            f"it holds pictures ({picture.relative_to(path)}, ...) but nothing known that says the wheel at each; "
            "put a CSV beside them with the columns image,steering,time_s"
        )
    if sound := next((file for file in within(path, BELOW) if file.suffix.lower() in SOUNDS), None):
        return f"it holds sounds ({sound.relative_to(path)}, ...); {FOR_SOUNDS.format(path)}"
    files = [file for file in entries(path) if file.is_file()]
    return next((f"{file.name}: {said}" for file in files[:LOOKED_AT] if (said := _file(file))), "")
