"""The JSON schema says the same as the loader: what one takes the other takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner.errors import RecipeError
from aligner.recipe.load import json_schema, load_recipe
from tests.data.tasks import NLI
from tests.recipe.complete import COMPLETE, write_complete

TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None),
}  # fmt: skip
SAID = {"description", "title", "default", "discriminator", "$defs"}  # words that ask nothing of a value


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """A checker of the part of JSON Schema that recipes use; a word it does not know is an error."""
    tests = {
        "$ref": lambda ref: fits(value, root["$defs"][ref.removeprefix("#/$defs/")], root),
        "type": lambda name: (
            isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        ),
        "const": lambda only: value == only,
        "enum": lambda words: value in words,
        "anyOf": lambda options: any(fits(value, option, root) for option in options),
        "oneOf": lambda options: sum(fits(value, option, root) for option in options) == 1,
        "required": lambda names: not isinstance(value, dict) or set(names) <= set(value),
        "properties": lambda parts: all(
            fits(value[k], part, root) for k, part in parts.items() if k in value
        ),
        "additionalProperties": lambda rest: all(
            rest is True or (rest is not False and fits(value[k], rest, root))
            for k in set(value) - set(schema.get("properties", {}))
        ),
        "items": lambda item: not isinstance(value, list) or all(fits(v, item, root) for v in value),
        "minItems": lambda n: len(value) >= n,
        "minLength": lambda n: not isinstance(value, str) or len(value) >= n,
        "minProperties": lambda n: len(value) >= n,
        "minimum": lambda n: value >= n,
        "maximum": lambda n: value <= n,
        "exclusiveMinimum": lambda n: value > n,
        "exclusiveMaximum": lambda n: value < n,
    }
    asked = [word for word in ("type", *schema) if word in schema and word not in SAID]
    return all(tests[word](schema[word]) for word in asked)


def values(stage: str) -> dict[str, Any]:
    return yaml.safe_load(COMPLETE[stage].replace("e-", ".0e-"))  # PyYAML speaks YAML 1.1


@pytest.mark.parametrize("stage", COMPLETE)
def test_complete_recipes_fit_their_schema_and_no_other(stage: str) -> None:
    assert fits(values(stage), json_schema(), json_schema())
    for other in COMPLETE:
        assert fits(values(stage), json_schema(other), json_schema(other)) == (other == stage)


@pytest.mark.parametrize("stage", COMPLETE)
def test_loaded_recipes_with_all_defaults_fit_too(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(write_complete(tmp_path)[stage]).recipe
    assert fits(recipe.model_dump(), json_schema(stage), json_schema(stage))


@pytest.mark.parametrize(
    ("key", "value"), [("seeed", 1), ("seed", -1), ("seed", "1"), ("output", 3), ("train", {"stpes": 1})]
)
def test_what_the_loader_refuses_the_schema_refuses(key: str, value: object) -> None:
    assert not fits({**values("sft"), key: value}, json_schema("sft"), json_schema("sft"))


def test_task_files_have_a_schema_too() -> None:
    schema = json_schema("task")
    whole = yaml.safe_load(NLI.replace("[yes, no]", '["yes", "no"]'))  # PyYAML speaks YAML 1.1
    assert fits(whole, schema, schema)
    assert not fits({**whole, "tempaltes": []}, schema, schema)
    assert not fits({key: value for key, value in whole.items() if key != "rows"}, schema, schema)
    assert not fits({**whole, "templates": [{"input": "x"}]}, schema, schema)
    described = {**schema["properties"], **schema["$defs"]["TemplateSpec"]["properties"]}
    assert all("description" in part for part in described.values())


def test_the_schema_of_an_unknown_stage_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match='did you mean "reward"'):
        json_schema("rewards")
