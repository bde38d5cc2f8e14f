"""Files and functions stay small, and no recipe field is left unread."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FILE_LINES = 300
FUNCTION_LINES = 50
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "misc.py", "common.py"}


def code_files() -> list[Path]:
    return sorted([*ROOT.glob("aligner/**/*.py"), *ROOT.glob("scripts/**/*.py")])


def test_files_stay_within_their_budget() -> None:
    files = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in code_files()
    }
    assert len(files) > 30
    assert {name: lines for name, lines in files.items() if lines > FILE_LINES} == {}


def test_functions_stay_within_their_budget() -> None:
    long = {}
    for path in code_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert long == {}


def test_files_are_named_for_what_they_hold() -> None:
    assert [path for path in code_files() if path.name in FORBIDDEN_NAMES] == []


def declared_fields(tree: ast.Module) -> set[str]:
    """Names of the annotated fields of the classes in a file."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    fields = [item.target for node in classes for item in node.body if isinstance(item, ast.AnnAssign)]
    return {target.id for target in fields if isinstance(target, ast.Name)}


def read_attributes(tree: ast.Module) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def property_reads(tree: ast.Module) -> set[str]:
    """What properties give on; a stage reads it by their names."""
    methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    given = [m for m in methods if any(ast.unparse(mark) == "property" for mark in m.decorator_list)]
    return {node.attr for method in given for node in ast.walk(method) if isinstance(node, ast.Attribute)}


def test_every_recipe_field_is_read_by_some_stage() -> None:
    """A knob that does nothing is a lie. (A field is taken for read where any attribute of its name is.)"""
    names = (
        "data.py", "place.py", "clean.py", "task.py", "mixture.py", "model.py", "training.py", "selfinstruct.py",
        "stage.py", "ppo.py", "preference.py", "group.py", "evaluate.py", "perplexity.py", "stages.py",
    )  # fmt: skip
    specs = [ROOT / "aligner/recipe" / name for name in names]
    declared = {
        name for path in specs for name in declared_fields(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {"learning_rate", "rank", "kl_coef", "stage"} <= declared
    package = [path for path in code_files() if path.relative_to(ROOT).parts[0] == "aligner"]
    outside = [path for path in package if "recipe" not in path.relative_to(ROOT).parts]
    read = {name for path in outside for name in read_attributes(ast.parse(path.read_text(encoding="utf-8")))}
    given_on = {
        name for path in specs for name in property_reads(ast.parse(path.read_text(encoding="utf-8")))
    }
    sections = {
        "dpo",
        "kto",
        "grpo",
        "rloo",
        "rejection",
    }  # `numbers` reads the one that is named after the stage
    assert sorted(declared - read - given_on - sections) == []


def test_the_rule_itself_can_tell() -> None:
    specs = ast.parse("class A:\n    used: int\n    idle: int\n")
    assert declared_fields(specs) - read_attributes(ast.parse("print(a.used)")) == {"idle"}
