"""Every route and every message, once: the app's routes, its checks and its descriptions are made of these tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..json_types import JsonObject
from ..version import __version__
from .limits import Limits, Refused

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "maxLength": 1000}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
NAMED: Schema = {"type": "object", "additionalProperties": NUMBER}
"""Numbers by name."""
WORDS: Schema = {"type": "object", "additionalProperties": {"type": ["number", "string"], "maxLength": 1000}}
"""What is said, by name: a number, or words."""
CELLS: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["number", "string", "boolean", "null"], "maxLength": 1000},
}
"""A row of a table by its columns, or what is said of it: estimates with bounds, a class and the chances of all."""
FACTS: Schema = {"type": "object", "additionalProperties": {"type": ["number", "string", "boolean"], "maxLength": 1000}}
"""Facts of a world by name, which ends in the unit where there is one: speed_mps."""
PICTURE: Schema = {"type": "string", "format": "binary"}


def between(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def listed(items: Schema, length: int | None = None) -> Schema:
    ends = {} if length is None else {"minItems": length, "maxItems": length}
    return {"type": "array", "items": items, **ends}


RANGES: Schema = {"type": "object", "additionalProperties": listed(NUMBER, 2)}
"""Lowest and highest value, by name."""


def maybe(schema: Schema) -> Schema:
    """The schema, or null."""
    return schema | {"type": [schema["type"], "null"]}


def old(schema: Schema) -> Schema:
    """A schema of the first protocol: kept for its clients."""
    return schema | {"deprecated": True}


def record(**fields: Schema) -> Schema:
    """An object with these fields, all of them, and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def typed(kinds: Mapping[str, Schema]) -> dict[str, Schema]:
    """Messages by their `type`, which stands in each."""
    return {
        kind: schema
        | {
            "properties": {"type": {"const": kind}, **schema["properties"]},
            "required": ["type", *schema["required"]],
        }
        for kind, schema in kinds.items()
    }


FAULT = record(error=TEXT, do=TEXT)
GOODBYE = record(why=TEXT)
PREDICTION = record(n=COUNT, prediction=NAMED, latency_ms=NUMBER, dropped=COUNT)
ROW = record(n=COUNT, said=CELLS, latency_ms=NUMBER, dropped=COUNT)
PROTOCOL = 2
"""Version of the page's socket. The first named a car's controls and facts; what it had is still sent and taken."""
FIRST: JsonObject = {"speed_mps": None, "score": None, "lap": False}
"""Facts that stood in a moment by themselves in the first protocol, with what stands there where there is none."""

TO_STAGE = typed(
    {
        "control": record(values=NAMED),
        "wheel": old({"type": "object", "properties": {}, "required": [], "additionalProperties": NUMBER}),
        "release": record(),
        "pause": record(paused=BOOLEAN),
        "restart": record(),
        "record": record(name=TEXT),
        "learn": record(),
    }
)
"""What a page may send; with a webcam also pictures, as binary messages; with a microphone sound:
its samples a second in four bytes, then samples of 16 bits, the least byte first."""

FROM_STAGE = typed(
    {
        "hello": record(
            run=TEXT,
            recipe=TEXT,
            protocol=COUNT,
            source={
                "type": "string",
                "enum": ["simulator", "log", "video", "webcam", "microphone", "training", "text"],
            },
            panels=listed(TEXT),
            controls=RANGES,
            wheel=old(BOOLEAN),
            targets=listed(TEXT),
            main_target=maybe(TEXT),
            units={"type": "object", "additionalProperties": TEXT},
            range=RANGES,
            rate_hz=NUMBER,
            sound_hz=COUNT,
            version=COUNT,
            belts=listed(record(layer=COUNT, gates=listed(TEXT), units=COUNT)),
            records=maybe(listed(TEXT)),
            recorded=COUNT,
            size=listed(COUNT, 2),
            paused=BOOLEAN,
        ),
        "moment": record(
            n=COUNT,
            time_s=NUMBER,
            record=TEXT,
            prediction=NAMED,
            said=WORDS,
            truth=maybe({"type": "object", "additionalProperties": maybe(NUMBER)}),
            driven=maybe(NAMED),
            hands={"type": "string", "enum": ["model", "person"]},
            facts=FACTS,
            speed_mps=old(maybe(NUMBER)),
            score=old(maybe(NUMBER)),
            lap=old(BOOLEAN),
            latency_ms=record(now=NUMBER, median=NUMBER, p99=NUMBER),
            dropped=COUNT,
            version=COUNT,
            gates=maybe(listed(listed(listed(between(0, 1))))),
            picture_bytes=COUNT,
            look_bytes=COUNT,
        ),
        "learning": record(step=COUNT, steps=COUNT, loss=maybe(NUMBER)),
        "swapped": record(version=COUNT),
        "recorded": record(drives=COUNT),
        "training": record(step=COUNT, steps=COUNT, loss=NUMBER, validation=maybe(NUMBER), lag=maybe(listed(NUMBER))),
        "paused": record(paused=BOOLEAN),
        "error": FAULT,
        "goodbye": GOODBYE,
    }
)
"""`moment` is the header of a binary message, the others are text."""

TO_STEP = {
    "reset": typed({"reset": record()})["reset"],
    "step": record(x={"type": ["number", "string", "array"]}),
    "row": record(row=CELLS),
}
"""What a program may send to `/api/step`, beside pictures as binary messages; rows to a model of tables."""
BEGUN = typed({"reset": record(n=COUNT, dropped=COUNT)})["reset"]
FROM_STEP = {
    "prediction": PREDICTION,
    "row": ROW,
    "reset": BEGUN,
    "error": record(n=COUNT, error=TEXT, do=TEXT),
    "goodbye": typed({"goodbye": GOODBYE})["goodbye"],
}

MOST_TEXT = 10_000
"""Characters of a text that something is to be said about, whatever the limit is set to."""
MOST_WEIGHTS = 10_000
"""Weights of attention; where there are more the picture of it is left out."""
LONG: Schema = {"type": "string", "maxLength": MOST_TEXT}
TO_SAY = record(text=LONG)
"""What `/api/say` takes."""
ATTENTION = record(source=listed(TEXT), target=listed(TEXT), weights=listed(listed(between(0, 1))))
"""A row of weights for each piece of what was said, a column for each piece of what was read."""
SAID = record(
    text={"type": "string"},
    pieces=listed(TEXT),
    unknown=COUNT,
    score=maybe(NUMBER),
    attention=maybe(ATTENTION),
    latency_ms=NUMBER,
)
"""What was said: the pieces it is made of, how many of what was read are unknown, the log-probability."""

ABOUT = record(
    steersman=TEXT,
    run=TEXT,
    recipe=TEXT,
    panels=listed(TEXT),
    takes={"type": "string", "enum": ["picture", "token", "numbers", "text", "row"]},
    shape=listed(COUNT),
    targets=listed(TEXT),
    units={"type": "object", "additionalProperties": TEXT},
    rate_hz=maybe(NUMBER),
    limits=NAMED,
    sessions=COUNT,
    viewers=COUNT,
)


def check(value: object, schema: Schema, where: str = "message") -> str | None:
    """What is wrong with a value, or None; knows what the tables above use of JSON Schema."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_a(value, kind) for kind in kinds):
        return f"{where} must be of type {' or '.join(kinds)}"
    if "const" in schema and value != schema["const"]:
        return f"{where} must be {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(schema['enum'])}"
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        return f"{where} is longer than {schema['maxLength']} characters"
    if _is_a(value, "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return f"{where} must be from {schema.get('minimum')} to {schema.get('maximum')}"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{where} must have {schema['maxItems']} items"
        return _first(check(one, schema.get("items", {}), f"{where}[{i}]") for i, one in enumerate(value))
    if isinstance(value, dict):
        return _check_object(value, schema, where)
    return None


def _check_object(value: dict, schema: Schema, where: str) -> str | None:
    fields, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{where} lacks {', '.join(missing)}"
    if others is False and (extra := [name for name in value if name not in fields]):
        return f"{where} has {len(extra)} fields too many; it takes {', '.join(fields)}"
    return _first(check(one, fields.get(name, others or {}), f"{where}.{name[:40]}") for name, one in value.items())


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one), None)


def _is_a(value: object, kind: str) -> bool:
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "number":
        return number
    return number and isinstance(value, int) if kind == "integer" else isinstance(value, kinds[kind])


def stepped(message: JsonObject) -> JsonObject:
    """A JSON message of a program. Refused where it is none that the table has."""
    if wrong := check(message, TO_STEP["reset" if "type" in message else "row" if "row" in message else "step"]):
        raise Refused(wrong, 'send {"x": ...}, {"row": {...}} or {"type": "reset"}, as /api/asyncapi.json says')
    return message


def command(message: Any) -> JsonObject:
    """A message of a page. Refused where it is none that the table has."""
    kind = message.get("type")
    do = f"send one of {', '.join(TO_STAGE)} as /api/asyncapi.json says"
    if not isinstance(kind, str) or kind not in TO_STAGE:
        raise Refused("there is no such message", do)
    if wrong := check(message, TO_STAGE[kind]):
        raise Refused(wrong, do)
    if kind == "wheel":
        return {"type": "control", "values": {name: value for name, value in message.items() if name != "type"}}
    return message


def controlled(values: Any, controls: Mapping[str, tuple[float, float]]) -> None:
    """Refused where values are not those of a world's controls, all of them and each within its range."""
    if wrong := check(values, record(**{name: between(*ends) for name, ends in controls.items()}), "values"):
        raise Refused(wrong, "send every control that `hello` names, within its range")


def asked(message: Any, most: int) -> str:
    """The text in what `/api/say` was sent. Refused where there is none, or it is longer than `most` characters."""
    if wrong := check(message, TO_SAY):
        raise Refused(wrong, 'send {"text": ...} as /api/openapi.json says')
    if len(message["text"]) > most:
        raise Refused(f"a text of over {most} characters", "send less, such as a sentence at a time", 413)
    return message["text"]


@dataclass(frozen=True)
class Operation:
    """A method of a path, answered by the app's method of that name."""

    method: str
    path: str
    name: str
    about: str
    answer: Schema | str
    """Schema of the JSON, else the type of what comes."""
    body: Mapping[str, Schema] = field(default_factory=dict)
    """What it takes: schemas by the type of what is sent."""


A_STEP = {"image/jpeg": PICTURE, "image/png": PICTURE, "application/json": {"oneOf": list(TO_STEP.values())}}
A_TEXT = {"application/json": TO_SAY}
SESSION = record(session=TEXT)
STEPPED = {"oneOf": [PREDICTION, BEGUN, ROW]}
OPERATIONS = (
    Operation("GET", "/", "page", "The page. With ?token=T: keeps the token as a cookie and goes on to /", "text/html"),
    Operation("GET", "/static/{name}", "static", "A file of the page", "application/octet-stream"),
    Operation("GET", "/api/about", "about", "The model, its inputs and outputs, and the limits", ABOUT),
    Operation("GET", "/api/openapi.json", "openapi", "This description", {"type": "object"}),
    Operation("GET", "/api/asyncapi.json", "asyncapi", "The WebSockets' messages", {"type": "object"}),
    Operation("POST", "/api/sessions", "open_session", "Opens a session: a sequence at its beginning", SESSION),
    Operation("POST", "/api/sessions/{id}/step", "step_session", "One step of a session", STEPPED, A_STEP),
    Operation("POST", "/api/sessions/{id}/reset", "reset_session", "Begins the sequence anew", SESSION),
    Operation("DELETE", "/api/sessions/{id}", "end_session", "Ends a session", SESSION),
    Operation("POST", "/api/say", "say", "What a model that reads whole texts says about one", SAID, A_TEXT),
)
SOCKETS = {
    "/api/step": ("step_socket", "A session for as long as it is open", TO_STEP, FROM_STEP),
    "/api/stage": ("stage_socket", "The show, and its page's commands", TO_STAGE, FROM_STAGE),
}


def openapi(limits: Limits) -> JsonObject:
    """The HTTP side, as OpenAPI 3.1."""
    paths: JsonObject = {}
    for one in OPERATIONS:
        kind, schema = ("application/json", one.answer) if isinstance(one.answer, dict) else (one.answer, PICTURE)
        said: JsonObject = {
            "operationId": one.name,
            "summary": one.about,
            "responses": {
                "200": {"description": "done", "content": {kind: {"schema": schema}}},
                "default": {"description": "refused", "content": {"application/json": {"schema": FAULT}}},
            },
        }
        names = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
        said["parameters"] = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
        if one.body:
            content = {kind: {"schema": schema} for kind, schema in one.body.items()}
            said["requestBody"] = {"required": True, "content": content}
        paths.setdefault(one.path, {})[one.method.lower()] = said
    return {
        "openapi": "3.1.0",
        "info": _info(),
        "paths": paths,
        "security": [{"token": []}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "x-limits": vars(limits),
    }


def asyncapi(limits: Limits) -> JsonObject:
    """The WebSockets, as AsyncAPI 3.0; `send` is what the server sends."""
    channels, operations = {}, {}
    for path, (name, about, taken, sent) in SOCKETS.items():
        messages = {f"to_{kind}": {"name": kind, "payload": schema} for kind, schema in taken.items()}
        messages |= {f"from_{kind}": {"name": kind, "payload": schema} for kind, schema in sent.items()}
        messages["to_picture"] = {"name": "picture", "contentType": "image/jpeg", "payload": PICTURE}
        channels[name] = {"address": path, "description": about, "messages": messages}
        for act, start in (("send", "from_"), ("receive", "to_")):
            those = [{"$ref": f"#/channels/{name}/messages/{key}"} for key in messages if key.startswith(start)]
            operations[f"{name}_{act}"] = {
                "action": act,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": those,
            }
    return {
        "asyncapi": "3.0.0",
        "info": _info() | {"description": MOMENT},
        "channels": channels,
        "operations": operations,
        "x-limits": vars(limits),
    }


MOMENT = (
    "A moment is a binary message: four bytes with the length of its JSON header, the least first; the header; a JPEG "
    "of `picture_bytes`; a greyscale PNG of `look_bytes`, to be laid over the picture: where the model looked."
)


def _info() -> dict[str, str]:
    return {"title": "Steersman live", "version": __version__}
