"""PhysioNet/CinC Challenge 2012: the first 48 hours of stays in intensive care, and whether they ended in death.

https://physionet.org/content/challenge-2012/1.0.0/ (ODC-BY 1.0). A set is a folder of one text a patient
(`Time,Parameter,Value`), its outcomes the file `Outcomes-a.txt` in it or beside it; or both in a tar archive. A record
is a patient: a row for each moment at which anything was measured, NaN for what was not; `time_h` counts hours from
admission. Descriptors and `outcome` (died or survived in hospital) stand in every row, the official scores in `about`.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ..data.records import Record
from ..errors import UserError
from ..progress import Watch, silent
from .safety import entries, head, own
from .tables import table_record

LAYOUT = "a set of PhysioNet 2012 (a folder of texts Time,Parameter,Value), or a tar archive of sets"
HEADER = "Time,Parameter,Value"
SIGNS: dict[str, tuple[float, float]] = {
    "Albumin": (0.5, 7),
    "ALP": (1, 5000),
    "ALT": (1, 20000),
    "AST": (1, 40000),
    "Bilirubin": (0.05, 100),
    "BUN": (1, 300),
    "Cholesterol": (20, 700),
    "Creatinine": (0.05, 30),
    "DiasABP": (5, 200),
    "FiO2": (0.2, 1),
    "GCS": (3, 15),
    "Glucose": (5, 2000),
    "HCO3": (2, 60),
    "HCT": (5, 75),
    "HR": (5, 300),
    "K": (1, 12),
    "Lactate": (0.1, 40),
    "Mg": (0.3, 12),
    "MAP": (5, 250),
    "MechVent": (0, 1),
    "Na": (90, 190),
    "NIDiasABP": (5, 200),
    "NIMAP": (5, 250),
    "NISysABP": (10, 300),
    "PaCO2": (5, 200),
    "PaO2": (10, 700),
    "pH": (6.5, 8),
    "Platelets": (1, 3000),
    "RespRate": (1, 100),
    "SaO2": (20, 100),
    "SysABP": (10, 300),
    "Temp": (25, 44),
    "TroponinI": (0, 100),
    "TroponinT": (0, 50),
    "Urine": (0, 5000),
    "WBC": (0.05, 400),
    "Weight": (20, 350),
}
"""Signs, and the bounds within which a living adult's may lie; what lies beyond was not measured, but mistyped."""
SKEWED = (
    "ALP", "ALT", "AST", "Bilirubin", "BUN", "Creatinine", "Glucose", "Lactate", "PaO2", "Platelets", "TroponinI",
    "TroponinT", "Urine", "WBC",
)  # fmt: skip
"""Signs of which few are many times as large as most."""
DESCRIPTORS = ("age_years", "sex", "height_cm", "unit", "admission_weight_kg")
"""Columns that are true of a whole stay."""
OUTCOME, DIED, SURVIVED = "outcome", "died", "survived"
"""Column of what became of a patient, and its words."""
SEXES = ("female", "male")
UNITS = ("coronary care", "cardiac surgery", "medical", "surgical")
MOST_BYTES = 2**31
"""Bytes that an archive may unpack to."""


def detect(path: Path) -> bool:
    """Whether a set, or an archive of sets, is here."""
    if path.is_file():
        return bool(re.search(r"\.tar(\.\w+)?$|\.tgz$", path.name))
    return path.is_dir() and any(_is_patient(file) for file in entries(path, "*.txt")[:3])


def read(path: Path, part: str = "", watch: Watch = silent) -> list[Record]:
    """A record a patient, by number; of an archive the set `part`, such as a.

    UserError names the file and the row that can't be read.
    """
    texts, outcomes = _archive(path, part) if path.is_file() else _folder(path)
    records = []
    for done, (name, text) in enumerate(sorted(texts.items())):
        if done % 64 == 0:
            watch("reading patients", done, len(texts))
        records.append(_patient(path, name, text, outcomes))
    watch("reading patients", len(texts), len(texts))
    return records


def _is_patient(file: Path) -> bool:
    return head(file, len(HEADER)).decode(errors="replace") == HEADER


def _folder(path: Path) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    files = entries(path, "*.txt")
    texts = {file.name: _text(own(file, path)) for file in files if _is_patient(file)}
    if not texts:
        raise UserError(f"{path} holds no patient; give {LAYOUT}")
    letter = path.name.removeprefix("set-")
    places = [file for file in files if file.name.startswith("Outcomes")]
    places += [beside] if (beside := path.parent / f"Outcomes-{letter}.txt").is_file() else []
    return texts, _outcomes(places[0].name, _text(places[0])) if places else {}


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} can't be read: {error}; mend it, or take it out") from error


def _archive(path: Path, part: str) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    sets: dict[str, dict[str, str]] = {}
    outcomes: dict[str, str] = {}
    total = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                if not member.isfile() or place.suffix != ".txt" or place.name.startswith("._"):
                    continue
                total += member.size
                if total > MOST_BYTES:
                    raise UserError(f"{path} unpacks to more than {MOST_BYTES >> 30} GiB; give its folders")
                opened = archive.extractfile(member)
                text = opened.read().decode() if opened else ""
                if found := re.fullmatch(r"Outcomes-(\w+)\.txt", place.name):
                    outcomes[found[1]] = text
                elif text.startswith(HEADER):
                    sets.setdefault(place.parent.name.removeprefix("set-"), {})[place.name] = text
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} can't be read: {why}; unpack it and give the folder of a set") from error
    if not sets:
        raise UserError(f"{path} holds no patient; give {LAYOUT}")
    if len(sets) > 1 and not part:
        raise UserError(f"{path} holds the sets {', '.join(sorted(sets))}; name one: {path}?set={min(sets)}")
    letter = part.removeprefix("set-") or next(iter(sets))
    if letter not in sets:
        raise UserError(f"{path} has no set {part}; it has {', '.join(sorted(sets))}")
    given = outcomes.get(letter)
    return sets[letter], _outcomes(f"{path}, Outcomes-{letter}.txt", given) if given is not None else {}


def _outcomes(where: str, text: str) -> dict[str, dict[str, float]]:
    """The official scores and outcomes of each patient."""
    first, *rows = text.splitlines() or [""]
    names = first.split(",")
    if not {"RecordID", "In-hospital_death"} <= set(names):
        raise UserError(f"{where} has no columns RecordID and In-hospital_death; it begins {first[:60]!r}")
    found = {}
    for number, row in enumerate(rows, 2):
        cells = row.strip().split(",")
        try:
            values = dict(zip(names, map(float, cells), strict=True))
            if values["In-hospital_death"] not in (0, 1):
                raise ValueError(f"In-hospital_death is {values['In-hospital_death']:g}, neither 0 nor 1")
        except ValueError as error:
            raise UserError(f"{where}, row {number}: {error}; mend it, or take it out") from None
        found[cells[names.index("RecordID")]] = values
    return found


def _patient(path: Path, name: str, text: str, outcomes: Mapping[str, Mapping[str, float]]) -> Record:
    about: dict[str, float] = {}
    rows: dict[float, dict[str, list[float]]] = {}
    for number, (minutes, sign, value) in _measured(f"{path}, {name}", text):
        if sign in SIGNS and (minutes > 0 or sign != "Weight"):
            low, high = SIGNS[sign]
            value = _typed(sign, value)
            if low <= value <= high:
                rows.setdefault(minutes / 60, {}).setdefault(sign, []).append(value)
        elif minutes == 0 and sign in ("RecordID", "Age", "Gender", "Height", "ICUType", "Weight"):
            about[sign] = value
        elif sign:
            raise UserError(f"{path}, {name}, row {number}: {sign!r} is no sign that is known; mend it, or take it out")
    time_h = sorted(rows) or [0.0]
    columns: dict[str, np.ndarray] = {"time_h": np.array(time_h)}
    for sign in SIGNS:
        values = [rows.get(hour, {}).get(sign) for hour in time_h]
        # Of two at one moment the mean; what two bags hold is summed.
        joined = np.sum if sign == "Urine" else np.mean
        columns[sign] = np.array([np.nan if v is None else v[0] if len(v) == 1 else joined(v) for v in values])
    number = f"{about.get('RecordID', 0):.0f}" if "RecordID" in about else Path(name).stem
    told = outcomes.get(number)
    if outcomes and told is None:
        raise UserError(f"{path}: the outcomes lack patient {number} ({name}); give the file that belongs to the set")
    columns |= {
        "age_years": _same(about.get("Age", -1), 0, 120, time_h),
        "sex": _word(about.get("Gender", -1), SEXES, time_h),
        "height_cm": _same(about.get("Height", -1), 100, 230, time_h),
        "unit": _word(about.get("ICUType", 0) - 1, UNITS, time_h),
        "admission_weight_kg": _same(about.get("Weight", -1), *SIGNS["Weight"], time_h),
    }
    if told is not None:
        columns[OUTCOME] = np.array([DIED if told["In-hospital_death"] else SURVIVED] * len(time_h), object)
    scores = {n: told[n] for n in ("SAPS-I", "SOFA") if n in told} if told is not None else {}
    return table_record(number, columns, {"format": "PhysioNet 2012", **scores})


def _measured(where: str, text: str) -> Iterator[tuple[int, tuple[int, str, float]]]:
    """Rows by number: minutes since admission, the sign, its value."""
    for number, line in enumerate(io.StringIO(text), 1):
        if number == 1 or not (row := line.strip()):
            continue
        try:
            time, sign, cell = row.split(",")
            hours, minutes = time.split(":")
            yield number, (60 * int(hours) + int(minutes), sign, float(cell))
        except ValueError:
            raise UserError(
                f"{where}, row {number}: {row[:60]!r} is not hours:minutes,sign,number; mend it, or take it out"
            ) from None


def _typed(sign: str, value: float) -> float:
    """What was meant: an acidity without its point, a temperature in Fahrenheit, a share in percent."""
    if sign == "pH":
        return value / 100 if 650 <= value <= 800 else value / 10 if 65 <= value <= 80 else value
    if sign == "Temp":
        return (value - 32) / 1.8 if 80 <= value <= 112 else value
    if sign == "FiO2":
        return value / 100 if 20 <= value <= 100 else value
    return value


def _same(value: float, low: float, high: float, rows: list[float]) -> np.ndarray:
    return np.full(len(rows), value if low <= value <= high else np.nan)


def _word(number: float, words: tuple[str, ...], rows: list[float]) -> np.ndarray:
    """The word of that number; "" where it is unknown."""
    known = number in range(len(words))
    return np.array([words[int(number)] if known else ""] * len(rows), object)
