"""The command line: exit codes, messages, and that nothing heavy is imported to say them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aligner import cli
from aligner.cli import printing
from aligner.cli import starter as starter_files
from aligner.errors import Interrupted, Problem, RunError
from aligner.recipe.plan import Plan, PlanRow, PlanTable, StagePlan
from tests.recipe.complete import write_complete

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "matplotlib", "numpy")
COMMANDS = (
    "pretrain",
    "sft",
    "reward",
    "ppo",
    "dpo",
    "kto",
    "grpo",
    "rloo",
    "rejection",
    "evaluate",
    "selfinstruct",
    "perplexity",
    "run",
    "check",
    "show",
    "report",
    "schema",
    "init",
    "publish",
)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


@dataclass
class Outcome:
    folder: Path = Path("runs/x")
    status: str = "done"
    results: dict[str, float] = field(default_factory=dict)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a stand-in for the pipeline behind the commands: only what the command does with its answers is looked at."""

    monkeypatch.chdir(tmp_path)
    write_complete(tmp_path)
    Path("r.yaml").write_text(Path("sft-complete.yaml").read_text())

    launched: dict[str, Callable[..., object]] = {"follow": lambda: None, "part": lambda: None}

    def install(**functions: Callable[..., object]) -> None:
        for module in ("aligner.pipeline", "aligner.check", "aligner.preview"):
            monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**(launched | functions)))  # type: ignore[arg-type]

    return install


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_help_names_every_command() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f" {command} " in result.output for command in COMMANDS)
    assert "aligner 0." in invoke("--version").output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Usage"),
        (["sft", "broken.yaml"], 2, 'broken.yaml:2:1: unknown key "seeed"\n    did you mean "seed"?'),
        (["check", "broken.yaml"], 2, 'unknown key "seeed"'),
        (["show", "broken.yaml"], 2, 'unknown key "seeed"'),
        (["run", "nowhere.yaml"], 2, "nowhere.yaml: no such recipe"),
        (["ppo", "sft-complete.yaml"], 2, "run it with: aligner sft sft-complete.yaml"),
        (["sft", "sft-complete.yaml", "-s", "train.epoch=1"], 2, '-s train.epoch: unknown key "train.epoch"'),
        (["schema", "sft"], 0, '"SftRecipe"'),
    ],
)
def test_help_and_recipe_errors_import_nothing_heavy(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    write_complete(tmp_path)
    (tmp_path / "broken.yaml").write_text(
        (tmp_path / "sft-complete.yaml").read_text().replace("seed", "seeed")
    )
    program = (
        f"import sys, runpy\nsys.argv = ['aligner', *{arguments!r}]\n"
        "try:\n    runpy.run_module('aligner', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        f"    print('END', end.code or 0, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = python(program, tmp_path)
    assert result.stdout.splitlines()[-1:] == [f"END {code} []"], result.stderr
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    if code:
        assert said in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "traceback"),
    [
        (RunError(Problem("runs/x", "it is locked", "wait")), 2, False),
        (Interrupted(Problem("runs/x", "stopped", "run the same command again")), 130, False),
        (KeyboardInterrupt(), 130, False),
        (ZeroDivisionError("ours"), 1, True),
    ],
)
def test_exit_codes_tell_whose_fault_it_is(
    error: BaseException, code: int, traceback: bool, pipeline: Callable[..., None]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    looks = {"show_recipe": fail, "show_dropped_rows": fail, "write_page": fail}
    pipeline(run_recipe=fail, check_recipe=fail, **looks)
    for command in ("sft", "run", "check", "show"):
        result = invoke(command, "r.yaml")
        assert result.exit_code == code
        assert result.stdout == ""
        assert ("Traceback" in result.stderr) is traceback
        assert str(error) in result.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert invoke("sft").exit_code == 2
    assert invoke("sft", "r.yaml", "--fesh").exit_code == 2
    assert invoke("dpo", "r.yaml").exit_code == 2


def test_what_was_asked_reaches_the_pipeline(pipeline: Callable[..., None]) -> None:
    calls: list[tuple[object, ...]] = []

    def run_recipe(path: Path, overrides: list[str], *, stage: str | None, fresh: bool) -> Outcome:
        calls.append((path, overrides, stage, fresh))
        return Outcome()

    pipeline(
        run_recipe=run_recipe,
        show_recipe=lambda *given: calls.append(given),
        show_dropped_rows=lambda *given: calls.append(("dropped", *given)),
        write_page=lambda *given: calls.append(("page", *given)),
    )
    assert invoke("ppo", "r.yaml", "-s", "a.b=1", "--set", "c=d=e", "--fresh").exit_code == 0
    assert invoke("run", "r.yaml").exit_code == 0
    assert invoke("show", "r.yaml", "-n", "7").exit_code == 0
    assert invoke("show", "r.yaml", "--dropped", "--stage", "sft").exit_code == 0
    assert invoke("show", "r.yaml", "--html", "rows.html", "-n", "2").output == "page: rows.html\n"
    twice = invoke("show", "r.yaml", "--html", "rows.html", "--dropped")
    assert twice.exit_code == 2 and "the page has the dropped rows, too" in twice.output
    assert calls == [
        (Path("r.yaml"), ["a.b=1", "c=d=e"], "ppo", True),
        (Path("r.yaml"), [], None, False),
        (Path("r.yaml"), [], 7, None),
        ("dropped", Path("r.yaml"), [], 5, "sft"),
        ("page", Path("rows.html"), Path("r.yaml"), [], 2, None),
    ]


def test_results_and_the_report_are_named(tmp_path: Path, pipeline: Callable[..., None]) -> None:
    (tmp_path / "report.html").write_text("")
    results = {"base/exact_match_share[items]": 0.25, "sft/exact_match_share[items]": 0.5}
    results |= {"sft/exact_match_share[items.fact]": 0.125} | {f"x/number_{n}": n for n in range(60)}
    pipeline(run_recipe=lambda *_, **__: Outcome(tmp_path, "done", results))
    output = invoke("run", "r.yaml").output
    lines = [line.split() for line in output.splitlines()]
    assert ["base", "sft"] in lines and ["exact", "match,", "items", "25.0", "%", "50.0", "%"] in lines
    assert "fact" not in output and "number" not in output
    assert f"61 more in {tmp_path}/results.json and the report" in output.replace("\n", "")
    assert f"report: {tmp_path}/report.html" in output
    pipeline(run_recipe=lambda *_, **__: Outcome(tmp_path, "already_done", results))
    output = invoke("run", "r.yaml").output
    assert "finished already: nothing to do" in output and "number_3" not in output
    assert f"report: {tmp_path}/report.html" in output


@pytest.mark.parametrize("columns", [50, 120])
def test_intervals_stand_beside_their_numbers_or_below_where_a_terminal_is_narrow(
    columns: int, pipeline: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = {"ppo/gold_gain": 0.307, "ppo/gold_gain_low": 0.27, "ppo/gold_gain_high": 0.345}
    results = gains | {key.replace("ppo", "grpo"): value for key, value in gains.items()}
    pipeline(run_recipe=lambda *_, **__: Outcome(results=results))
    monkeypatch.setattr(printing, "NO_TERMINAL", columns)
    lines = [line.split() for line in invoke("run", "r.yaml").output.splitlines()]
    beside = ["(0.270", "to", "0.345)"] * 2
    assert (["gold", "gain", "0.307", *beside[:3], "0.307", *beside[:3]] in lines) is (columns == 120)
    assert (beside in lines) is (columns == 50)


def test_check_prints_the_plan_with_its_reasons(pipeline: Callable[..., None]) -> None:
    rows = (PlanRow("precision", "fp32", "this CPU has no bf16 [amx]"), PlanRow("steps", "120"))
    table = PlanTable(("source", "rows"), (("[a] " + "very_" * 20 + "long.jsonl", "12,000"),))
    pipeline(check_recipe=lambda *_: Plan((StagePlan("sft", rows, (table,)),)))
    output = invoke("check", "r.yaml").output
    assert "\n".join(table.lines()) in output
    for said in ("sft", "precision", "fp32", "this CPU has no bf16 [amx]", "steps", "120"):
        assert said in output


def test_schema_prints_json() -> None:
    assert set(json.loads(invoke("schema").output)["discriminator"]["mapping"]) >= {"sft", "ppo", "pipeline"}
    assert json.loads(invoke("schema", "ppo").output)["title"] == "PpoRecipe"
    assert json.loads(invoke("schema", "task").output)["title"] == "TaskSpec"
    assert invoke("schema", "pppo").exit_code == 2


def test_init_copies_recipes_and_data_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter, target = tmp_path / "starter", tmp_path / "new"
    for name in (
        "recipes/quickstart.yaml",
        "recipes/real/all.yaml",
        "recipes/rules.jsonl",
        "data/world/a.jsonl",
        "recipes/RESULTS.md",
        "recipes/README.md",
    ):
        (starter / name).parent.mkdir(parents=True, exist_ok=True)
        (starter / name).write_text(name)
    monkeypatch.setattr(starter_files, "_starter_root", lambda: starter)
    assert "5 files written" in invoke("init", str(target)).output
    assert (target / "recipes/real/all.yaml").read_text() == "recipes/real/all.yaml"
    (target / "data/world/a.jsonl").write_text("mine")
    (target / "recipes/quickstart.yaml").unlink()
    output = invoke("init", str(target)).output
    assert "1 files written" in output
    assert "4 files there already, left as they are" in output and "a.jsonl" not in output
    assert (target / "data/world/a.jsonl").read_text() == "mine"


def test_init_into_a_file_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    result = CliRunner().invoke(cli.app, ["init", str(tmp_path / "rows.jsonl")])
    assert result.exit_code == 2 and "is a file" in result.output


def test_init_in_a_checkout_finds_its_own_recipes_and_data() -> None:
    assert (starter_files._starter_root() / "data").is_dir()


def test_publish_takes_a_folder_for_a_dry_run_only() -> None:
    result = invoke("publish", "runs/x", "somewhere", "--repo", "you/name")
    assert result.exit_code == 2
    assert "--dry-run" in result.stderr


def test_publish_is_private_unless_asked_and_a_dry_run_writes_beside_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[object, ...]] = []

    def upload(run: Path, repo: str, *, private: bool, dry_run_folder: Path | None) -> object:
        calls.append((run, repo, private, dry_run_folder))
        return types.SimpleNamespace(
            files=["README.md"], url=None if dry_run_folder else "https://hub/you/name"
        )

    monkeypatch.setitem(sys.modules, "aligner.hub.upload", types.SimpleNamespace(publish=upload))  # type: ignore[arg-type]
    assert "published: https://hub/you/name" in invoke("publish", "runs/x", "--repo", "you/name").output
    invoke("publish", "runs/x", "--repo", "you/name", "--public")
    assert (
        "written, not uploaded: runs/x-publish"
        in invoke("publish", "runs/x", "--repo", "a/b", "--dry-run").output
    )
    invoke("publish", "runs/x", "--repo", "a/b", "--dry-run", "out")
    assert calls == [
        (Path("runs/x"), "you/name", True, None),
        (Path("runs/x"), "you/name", False, None),
        (Path("runs/x"), "a/b", True, Path("runs/x-publish")),
        (Path("runs/x"), "a/b", True, Path("out")),
    ]
