"""Runs of older versions: their config.json as this version writes it."""

from typing import Any

from ..json_types import JsonMapping, JsonObject

FORMAT = 2
"""Format of config.json; a run with a higher one was written by a newer version."""


def upgraded(written: JsonMapping) -> JsonObject:
    """What a config.json of any older format says, in today's words."""
    config = {"command": "", "created": "", "version": "0.1.0", **written}
    if written["format"] < 2 and isinstance(config.get("recipe"), dict):
        config["recipe"] = _recipe_1(_renamed(config["recipe"]))
        if config["recipe"].get("kind") == "SequenceToSequence":
            config["raw"] = {}
    return config


RENAMED: dict[str, dict[str, str]] = {
    "Training": {
        "rate": "learning_rate",
        "final_rate": "final_learning_rate",
        "decay": "weight_decay",
        "clip": "clip_norm",
        "average": "ema_decay",
        "hold": "constant_share",
    },
    "Lanes": {"rows": "batch_size", "steps": "window", "cold_weight": "restart_weight"},
    "Windows": {"rows": "batch_size", "steps": "window"},
    "ByLength": {"rows": "batch_size", "steps": "max_steps"},
    "Decoder": {"sampled": "scheduled_sampling", "ramp": "sampling_ramp"},
}
"""Fields of format 1 by their kind, and what they are called now."""


def _renamed(data: Any) -> Any:
    """The same JSON with today's names of fields."""
    if isinstance(data, list):
        return [_renamed(item) for item in data]
    if not isinstance(data, dict):
        return data
    names = RENAMED.get(str(data.get("kind")), {})
    return {names.get(name, name): _renamed(item) for name, item in data.items()}


def _recipe_1(recipe: JsonObject) -> JsonObject:
    """A recipe of format 1 (version 0.1), which had no task."""
    head = recipe.get("head")
    kind = head.get("kind") if isinstance(head, dict) else None
    if recipe.get("kind") == "Translation":
        return _translation_1(recipe)
    task = {"NextSymbol": "PredictText", "Classification": "Classify", "Regression": "Estimate"}.get(str(kind))
    targets = head.get("targets") if isinstance(head, dict) else None
    if task == "Estimate" and isinstance(targets, list) and targets[:1] == ["steer"]:
        task = "EstimateSteering"
    kind = recipe.get("kind")
    return {**recipe, "kind": "StepRecipe" if kind == "Recipe" else kind, "task": {"kind": task} if task else None}


def _translation_1(recipe: JsonObject) -> JsonObject:
    idle = ("inputs", "flavour", "skip", "feedback", "augment")
    kept = {name: v for name, v in recipe.items() if name not in (*idle, "core", *_DECODING)}
    decoding = {_DECODING[name]: recipe[name] for name in _DECODING if name in recipe}
    encoder, split = recipe.get("encoder"), recipe.get("split", {})
    if isinstance(encoder, dict) and encoder.get("kind") == "Reader":
        encoder = {**encoder, "kind": "TextEncoder"}
    return {
        **kept,
        "kind": "SequenceToSequence",
        "encoder": encoder,
        "decoder": recipe.get("core"),
        "split": {**split, "apart": ["source", "target"]} if isinstance(split, dict) else split,
        "task": {"kind": "TranslateText", **decoding},
    }


_DECODING = {"longest": "max_length", "judged": "validation_pairs", "beam": "beam_width", "power": "length_penalty"}
"""Fields of format 1 that say how a translator is scored."""
