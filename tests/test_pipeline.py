"""From recipes to run folders: bases made once, artifacts handed on, finished work left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest

from aligner.bases import base_folder, code_files, pretrain_fingerprint
from aligner.check import check_recipe
from aligner.errors import DataError, RecipeError, RunError
from aligner.pipeline import run_recipe, run_stage
from aligner.planning import planned_stages
from aligner.preflight import check_ahead
from aligner.preview import show_dropped_rows, show_recipe
from aligner.recipe.clean import CleanSpec
from aligner.recipe.load import load_recipe
from aligner.recipe.stages import PretrainRecipe
from tests.data.hub_cache import keep_data_set
from tests.data.tasks import NLI, nli_rows, write_task

BASE = """\
stage: pretrain
output: runs/base
model: {hidden_size: 32, layers: 1, heads: 2, intermediate_size: 32, context_length: 64}
tokenizer: {vocab_size: 320}
data:
  train: [{path: documents.jsonl, format: documents}]
  block_length: 32
train: {steps: 2, rows_per_step: 4}
"""
SFT = """\
stage: sft
output: runs/sft
model: {base: base.yaml, lora: {rank: 2, alpha: 4}}
data: {train: [{path: chats.jsonl, format: messages}], max_length: 64}
train: {steps: 2, rows_per_step: 4}
"""
REWARD = """\
stage: reward
output: runs/reward
model: {base: sft.yaml, merge: true}
data: {train: [{path: pairs.jsonl, format: pairs}], max_length: 64}
train: {steps: 2, rows_per_step: 4}
"""
PPO = """\
stage: ppo
output: runs/ppo
model: {base: sft.yaml}
reward: [{model: reward.yaml}]
data: {train: [{path: prompts.jsonl, format: prompts}]}
sampling: {max_new_tokens: 4}
ppo: {steps: 1, prompts_per_step: 4, epochs: 1}
"""
PIPELINE = """\
stage: pipeline
output: runs/all
stages:
  base: {use: base.yaml}
  sft:
    use: sft.yaml
    set: {model.base: "@base"}
  reward:
    use: reward.yaml
    set: {model.base: "@sft"}
  ppo:
    use: ppo.yaml
    set: {model.base: "@sft", reward.0.model: "@reward"}
"""
RECIPES = {"base": BASE, "sft": SFT, "reward": REWARD, "ppo": PPO, "all": PIPELINE}


def pipeline_rows() -> dict[str, list[dict[str, object]]]:
    words = ["red", "blue", "green", "black", "white", "brown", "pink", "grey"]
    asked = [f"Which colour has ball {i}?" for i in range(len(words))]
    chats = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": w}]}
        for q, w in zip(asked, words, strict=True)
    ]
    pairs = [{"prompt": q, "chosen": w, "rejected": w + " silly"} for q, w in zip(asked, words, strict=True)]
    documents = [
        {"text": f"The ball number {i} is {w}, and so is the hat of {w} wool."} for i, w in enumerate(words)
    ]
    return {
        "documents": documents * 2,
        "chats": chats,
        "pairs": pairs,
        "prompts": [{"prompt": q} for q in asked],
    }


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for name, rows in pipeline_rows().items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("ALIGNER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _base() -> PretrainRecipe:
    recipe = load_recipe(Path("base.yaml")).recipe
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def test_a_pipeline_hands_artifacts_on_skips_what_is_done_and_resumes_what_is_not(folder: Path) -> None:
    first = run_recipe(Path("all.yaml"))
    assert first.status == "done" and (first.folder / "report.html").exists()
    assert {"sft", "base", "reward", "ppo"} <= {path.name for path in first.folder.iterdir()}
    parents = json.loads((folder / "runs/all/ppo/manifest.json").read_text())["parents"]
    assert all("runs/all/" in identity for identity in parents.values()), parents
    weights = folder / "runs/all/sft/model/adapter_model.safetensors"
    before = (weights.stat().st_mtime_ns, weights.read_bytes())
    again = run_recipe(Path("all.yaml"))
    assert again.status == "already_done"
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before
    assert not (folder / "home").exists()  # nothing but named recipes goes to the cache


def test_a_base_recipe_is_trained_once_and_taken_from_the_cache_after_that(folder: Path) -> None:
    run_recipe(Path("sft.yaml"))
    weights = base_folder(_base()) / "model" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    assert weights.is_relative_to(folder / "home")
    run_recipe(Path("sft.yaml"), ["output=runs/other", "train.learning_rate=1e-4"])
    assert weights.stat().st_mtime_ns == trained
    assert [path.name for path in (folder / "home" / "bases").iterdir()] == [weights.parent.parent.name]


def test_the_fingerprint_follows_recipe_and_data_and_not_the_output(folder: Path) -> None:
    recipe = _base()
    before = pretrain_fingerprint(recipe)
    assert pretrain_fingerprint(recipe.model_copy(update={"output": "elsewhere"})) == before
    assert pretrain_fingerprint(recipe.model_copy(update={"seed": 1})) != before
    with (folder / "documents.jsonl").open("a") as file:
        file.write('{"text": "One more ball is red, and it is the last of all the balls."}\n')
    assert pretrain_fingerprint(recipe) != before


EARLY = ["data.curriculum={sources: [{path: early.jsonl}], until: 0.5}"]


def test_the_curriculum_is_in_fingerprint_plan_show_and_preflight(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = folder / "early.jsonl"
    early.write_text("".join(f'{{"text": "{"again and again " * 9}{i}"}}\n' for i in range(400)))
    recipe = load_recipe(Path("base.yaml"), EARLY).recipe
    assert isinstance(recipe, PretrainRecipe)
    before = pretrain_fingerprint(recipe)
    assert before != pretrain_fingerprint(_base())
    (row,) = (r for r in check_recipe(Path("base.yaml"), EARLY).stages[0].rows if r.name == "curriculum")
    assert "more are left out" in row.why
    show_recipe(Path("base.yaml"), EARLY, count=2)
    assert "curriculum 2: early.jsonl:" in capsys.readouterr().out
    early.write_text(early.read_text() + "{oops\n")
    assert pretrain_fingerprint(recipe) != before
    with pytest.raises(DataError, match="early.jsonl:401"):
        check_ahead([recipe])


def test_what_is_wrong_with_every_source_is_told_at_once(folder: Path) -> None:
    recipes = [load_recipe(Path(name)).recipe for name in ("sft.yaml", "reward.yaml", "ppo.yaml")]
    for name, wrong in (("chats", "{oops\n[]\n"), ("pairs", '{"prompt": "a"}\n')):
        (folder / f"{name}.jsonl").write_text((folder / f"{name}.jsonl").read_text() + wrong)
    (folder / "prompts.jsonl").write_text("")
    with pytest.raises(DataError) as error:
        check_ahead(recipes)
    told = [problem.where for problem in error.value.problems]
    assert told == ["chats.jsonl:9", "chats.jsonl:10", "pairs.jsonl:9", "prompts.jsonl"]


CLEAN = ["data.clean={words: [bad.words], mask: [email], deduplicate: false}"]


def test_cleaning_is_in_fingerprint_preflight_and_show(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = folder / "bad.words"
    words.write_text("pink\n")
    recipe = load_recipe(Path("base.yaml"), CLEAN).recipe
    assert isinstance(recipe, PretrainRecipe)
    before = pretrain_fingerprint(recipe)
    assert before != pretrain_fingerprint(_base())
    show_dropped_rows(Path("all.yaml"), [f"base.{CLEAN[0]}", "sft.data.clean.words=bad.words"], count=1)
    shown = capsys.readouterr().out.splitlines()
    assert [line.rstrip("─ ") for line in shown if "dropped" in line] == [
        "train: documents.jsonl, 2 of 16 rows dropped",
        "train: chats.jsonl, 1 of 8 rows dropped",
        "train: pairs.jsonl, 0 of 8 rows dropped",
        "train: prompts.jsonl, 0 of 8 rows dropped",
    ]
    assert "  documents.jsonl:7  The ball number 6 is pink, and so is the hat of pink wool." in shown
    assert sum("pink" in line for line in shown) == 2  # one of each reason
    words.write_text("\n")
    assert pretrain_fingerprint(recipe) != before
    with pytest.raises(DataError, match="bad.words: has no words"):
        check_ahead([recipe])
    words.write_text("pink\n")
    other = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"clean": CleanSpec(repair=True)})}
    )
    before = pretrain_fingerprint(other)
    monkeypatch.setattr("aligner.bases.LIBRARIES_OF_CLEANING", {"repair": "no-such-library"})
    assert pretrain_fingerprint(other) != before


def test_a_finished_run_asks_for_the_word_files_it_was_cleaned_with(folder: Path) -> None:
    (folder / "bad.words").write_text("pink\n")
    assert run_recipe(Path("base.yaml"), CLEAN).status == "done"
    assert run_recipe(Path("base.yaml"), CLEAN).status == "already_done"
    (folder / "bad.words").write_text("pink\ngrey\n")
    with pytest.raises(RunError, match="made from something else:\n.*bad.words: its bytes had sha256"):
        run_recipe(Path("base.yaml"), CLEAN)


@pytest.mark.parametrize("status", ["finished", "interrupted"])
def test_the_same_base_is_found_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    here = base_folder(_base())
    run_recipe(Path("sft.yaml"))
    manifest = here / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"status": "finished"', f'"status": "{status}"'))
    made = (here / "model" / "model.safetensors").stat().st_mtime_ns
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("sft.yaml", "documents.jsonl", "chats.jsonl"):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    (elsewhere / "base.yaml").write_text(BASE.replace("documents.jsonl", str(elsewhere / "documents.jsonl")))
    monkeypatch.chdir(elsewhere)
    assert base_folder(_base()) == here
    run_recipe(Path("sft.yaml"))
    remade = (here / "model" / "model.safetensors").stat().st_mtime_ns != made
    assert remade is (status == "interrupted")


def test_the_fingerprints_code_is_all_there() -> None:
    names = {path.name for path in code_files()}
    assert {"seed.py", "small.py", "stages.py", "pretrain.py", "packing.py"} <= names
    assert "rewards.py" not in names and all(path.is_file() for path in code_files())


def test_all_stages_mistakes_are_told_at_once_before_anything_runs(folder: Path) -> None:
    broken = PIPELINE.replace('"@base"', '"@bsae"').replace("reward.0.model", "reward.0.modle")
    (folder / "all.yaml").write_text(broken)
    with pytest.raises(RecipeError) as caught:
        run_recipe(Path("all.yaml"))
    told = str(caught.value)
    assert 'did you mean "base"?' in told and 'did you mean "ppo.reward.0.model"?' in told
    assert not (folder / "runs").exists()


def test_bad_rows_and_wrong_rewards_are_told_before_any_base_is_trained(folder: Path) -> None:
    with (folder / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "Which?", "chosen": 3, "rejected": "no"}\n')
    with (folder / "chats.jsonl").open("a") as file:
        file.write("no row\n")
    for recipe in ("all.yaml", "ppo.yaml"):  # as stages, and as recipes that a single one starts from
        with pytest.raises(DataError) as caught:
            run_recipe(Path(recipe))
        assert "pairs.jsonl:9" in str(caught.value) and "chats.jsonl:9" in str(caught.value)
    assert not (folder / "home").exists() and not (folder / "runs").exists()


def test_misnamed_modules_of_adapters_are_told_before_any_base_is_trained(folder: Path) -> None:
    (folder / "sft.yaml").write_text(SFT.replace("alpha: 4}", "alpha: 4, targets: [q_prj, v_proj]}"))
    (folder / "reward.yaml").write_text(
        REWARD.replace("merge: true}", "lora: {modules_to_save: [modle.norm]}}")
    )
    for recipe in ("reward.yaml", "all.yaml"):
        with pytest.raises(RecipeError) as caught:
            run_recipe(folder / recipe)
        told = str(caught.value)
        assert 'sft.yaml: model.lora.targets: no layer is named "q_prj"' in told and "q_proj" in told
        assert 'reward.yaml: model.lora.modules_to_save: no module is named "modle.norm"' in told
    assert not list(folder.rglob("*.safetensors"))


def test_what_a_pipeline_sets_is_told_where_it_stands_and_with_the_stages_name(folder: Path) -> None:
    changes = ["ppo.steps=3", "sft.trian.steps=1", "reward.model.base=@sfft"]
    with pytest.raises(RecipeError) as caught:
        run_recipe(Path("all.yaml"), changes)
    told = str(caught.value)
    assert '-s ppo.steps: stage ppo: unknown key "steps"\n    it belongs at "ppo.ppo.steps"' in told
    assert '-s sft.trian.steps: stage sft: unknown key "trian"\n    did you mean "sft.train"?' in told
    assert 'starts from "@sfft"' in told
    (folder / "all.yaml").write_text(PIPELINE.replace("reward.0.model", "rewad"))
    with pytest.raises(RecipeError, match=r'all.yaml:13:38: stage ppo: unknown key "rewad"'):
        run_recipe(Path("all.yaml"))


def test_a_merge_without_an_adapter_and_an_adapter_over_one_are_told_before_anything_runs(
    folder: Path,
) -> None:
    with pytest.raises(RecipeError) as caught:
        run_recipe(Path("all.yaml"), ["sft.model.lora=null"])
    (problem,) = caught.value.problems
    assert problem.where == "all.yaml:10:23" and 'the base "@sft" is a full model' in problem.what
    assert "-s reward.model.merge=false" in problem.remedy
    with pytest.raises(RecipeError, match="model.lora: the base .* is an adapter already"):
        check_recipe(Path("ppo.yaml"), ["model.lora={rank: 2}"])
    (folder / "sft.yaml").write_text(SFT.replace(", lora: {rank: 2, alpha: 4}", ""))
    with pytest.raises(
        RecipeError, match="reward.yaml:3:15: model.merge: the base .*sft.yaml.* is a full model"
    ):
        run_recipe(Path("ppo.yaml"))
    assert not list(folder.rglob("*.safetensors"))


def test_a_misspelt_base_is_told_where_it_stands_with_the_folder_that_was_meant(folder: Path) -> None:
    (folder / "bases" / "first").mkdir(parents=True)
    for base in ("bases/frist", "./bases/frist"):
        (folder / "sft.yaml").write_text(SFT.replace("base.yaml", base))
        with pytest.raises(RecipeError) as caught:
            run_recipe(Path("sft.yaml"))
        (problem,) = caught.value.problems
        assert problem.where == "sft.yaml:3:15" and 'did you mean "bases/first"?' in problem.remedy


def test_a_wrong_reward_function_is_told_before_any_base_is_trained(folder: Path) -> None:
    (folder / "ppo.yaml").write_text(
        PPO.replace("{model: reward.yaml}", '{function: "aligner.evals.gold_rows:score_row"}')
    )
    with pytest.raises(RecipeError, match='did you mean "score_rows"'):
        run_recipe(Path("ppo.yaml"))
    assert not (folder / "home").exists() and not (folder / "runs").exists()


def test_a_base_that_makes_no_model_is_told(folder: Path) -> None:
    (folder / "sft.yaml").write_text(SFT.replace("base.yaml", "all.yaml"))
    with pytest.raises(RecipeError, match="makes no model"):
        run_recipe(Path("sft.yaml"))


def _short(folder: Path) -> Path:
    """A pipeline of base and sft."""
    path = folder / "short.yaml"
    path.write_text(PIPELINE.split("  reward:\n")[0].replace("runs/all", "runs/short"))
    return path


def test_a_finished_stage_that_stands_on_another_model_or_other_data_is_refused(folder: Path) -> None:
    run_recipe(_short(folder))
    weights = folder / "runs/short/base/model/model.safetensors"
    before, chats = weights.read_bytes(), (folder / "chats.jsonl").read_text()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(RunError, match=r"base: was .*#\w{12}, is .*#\w{12}"):
        run_recipe(Path("short.yaml"))
    weights.write_bytes(before)
    (folder / "chats.jsonl").write_text(chats.replace("red", "mauve"))
    with pytest.raises(RunError, match="chats.jsonl: its bytes"):
        run_recipe(Path("short.yaml"))
    (folder / "chats.jsonl").write_text(chats)
    assert run_recipe(Path("short.yaml")).status == "already_done"


def test_a_fresh_pipeline_clears_every_stage_first_and_goes_on_without_fresh(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_recipe(_short(folder))
    (first.folder / "sft" / "notes.txt").write_text("mine")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("aligner.pipeline.run_stage", stop)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(Path("short.yaml"), fresh=True)
    assert (first.folder / "sft" / "notes.txt").exists()
    assert not any((first.folder / name / "model").exists() for name in ("base", "sft"))
    ran: list[str] = []

    def noted(recipe: object, **settings: bool) -> object:
        outcome = run_stage(recipe, **settings)  # type: ignore[arg-type]
        ran.append(f"{outcome.folder.name} {outcome.status}")
        return outcome

    monkeypatch.setattr("aligner.pipeline.run_stage", noted)
    assert run_recipe(Path("short.yaml")).status == "done"
    assert ran == ["base done", "sft done"]


def test_a_pipelines_own_manifest_says_what_it_ran_on_and_a_lost_report_comes_back(folder: Path) -> None:
    first = run_recipe(_short(folder))
    manifest = json.loads((first.folder / "manifest.json").read_text())
    assert manifest["status"] == "finished" and manifest["started"] < manifest["ended"]
    assert manifest["versions"]["torch"] and manifest["hardware"]["threads"] > 0
    assert list(manifest["parents"]) == ["base", "sft"]
    assert all("#" in identity for identity in manifest["parents"].values())
    assert manifest["results"] == json.loads((first.folder / "results.json").read_text())
    assert first.results.items() <= manifest["results"].items() and first.results
    (first.folder / "report.html").unlink()
    assert run_recipe(Path("short.yaml")).status == "already_done"
    assert (first.folder / "report.html").exists()
    assert json.loads((first.folder / "manifest.json").read_text()) == manifest


def test_a_changed_stage_is_told_by_its_folder_and_can_be_run_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "two.yaml").write_text(PIPELINE.partition("  reward:")[0])
    run_recipe(Path("two.yaml"))
    (folder / "runs/all/sft/manifest.json").touch()
    base = (folder / "runs/all/base/model/model.safetensors").stat().st_mtime_ns
    with pytest.raises(
        RunError, match=r"runs/all/sft: made from something else:\n +train.steps: was 2, is 3"
    ) as told:
        run_recipe(Path("two.yaml"), ["sft.train.steps=3"])
    assert len(told.value.problems) == 1 and "delete the folder" in str(told.value)
    shutil.rmtree(folder / "runs/all/sft")
    assert run_recipe(Path("two.yaml"), ["sft.train.steps=3"]).status == "done"
    assert (folder / "runs/all/base/model/model.safetensors").stat().st_mtime_ns == base
    said = capsys.readouterr().err
    assert "stage 1 of 2: base in runs/all/base, finished already" in said and "stage 2 of 2: sft" in said
    assert run_recipe(Path("two.yaml"), ["sft.train.steps=3"]).status == "already_done"


def test_a_pipeline_never_takes_over_a_stages_folder(folder: Path) -> None:
    run_recipe(Path("base.yaml"))
    before = (folder / "runs/base/manifest.json").read_bytes()
    with pytest.raises(RunError, match="runs/base: made from something else"):
        run_recipe(Path("all.yaml"), ["output=runs/base"])
    assert (folder / "runs/base/manifest.json").read_bytes() == before


def test_a_root_from_outside_holds_for_the_recipes_that_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "moved").mkdir()
    for file in folder.glob("*.jsonl"):
        file.rename(folder / "moved" / file.name)
    (folder / "base.yaml").write_text(BASE + "root: nowhere\n")
    with pytest.raises(RecipeError, match="root: no folder nowhere") as told:
        run_recipe(Path("base.yaml"))
    assert len(told.value.problems) == 1  # and not a line for every file
    (planned,) = check_recipe(Path("sft.yaml"), ["root=moved"]).stages
    assert {row.name: row.value for row in planned.rows}["before"] == "base.yaml (pretrain)"
    show_recipe(Path("sft.yaml"), ["root=moved"], count=1)
    assert "<|assistant|>" in capsys.readouterr().out
    assert run_recipe(Path("sft.yaml"), ["root=moved"]).status == "done"
    said = capsys.readouterr().err
    assert "2 stages: base.yaml (pretrain), then sft.yaml (sft); `aligner check` tells" in said
    assert "base.yaml comes first; its model is kept in" in said
    (folder / "two.yaml").write_text(
        "stage: pipeline\noutput: runs/two\nroot: moved\nstages: {sft: {use: sft.yaml}}\n"
    )
    assert run_recipe(Path("two.yaml")).status == "done"


def test_planned_stages_of_a_single_recipe_are_itself() -> None:
    (stage,) = planned_stages(Path("sft.yaml"))
    assert (stage.name, stage.path) == ("sft", Path("sft.yaml"))


def test_check_and_show_say_what_would_happen_and_train_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from aligner.check import check_recipe
    from aligner.preview import show_recipe, write_page

    plan = {
        stage.name: {row.name: row.value for row in stage.rows}
        for stage in check_recipe(Path("all.yaml")).stages
    }
    assert list(plan) == ["base (pretrain)", "sft (sft)", "reward (reward)", "ppo (ppo)"]
    assert plan["sft (sft)"]["rows"] == "8" and plan["sft (sft)"]["steps"] == "2"
    assert plan["ppo (ppo)"]["prompts"] == "8"
    assert not [rows for rows in plan.values() if "before" in rows]
    (alone,) = check_recipe(Path("sft.yaml")).stages
    assert {row.name: row.value for row in alone.rows}["before"] == "base.yaml (pretrain)"
    (packed,) = check_recipe(Path("sft.yaml"), ["train.packing=true"]).stages
    for stage, how in ((alone, "rows of about one length"), (packed, "rows packed to lines of 64 tokens")):
        (padding,) = [row for row in stage.rows if row.name == "padding"]
        assert how in padding.why and 0 <= float(padding.value.removesuffix("%")) < 50
    show_recipe(Path("all.yaml"), count=1)
    shown = capsys.readouterr().out
    assert "<|assistant|>" in shown and "is rejected" in shown
    show_recipe(Path("all.yaml"), count=1, stage="reward")
    alone_shown = capsys.readouterr().out
    assert "is rejected" in alone_shown and len(alone_shown) < len(shown)
    with pytest.raises(RecipeError, match=r'all.yaml has no such stage\n +did you mean "reward"'):
        show_recipe(Path("all.yaml"), stage="rewrad")
    write_page(Path("pages/rows.html"), Path("all.yaml"), count=1)
    page = Path("pages/rows.html").read_text(encoding="utf-8")
    assert [page.count(f">{name}") for name in ("base", "sft", "reward", "ppo")] == [1] * 4
    assert "<th" in page and "tokens, 1 to" in page and 'class="rejected"' in page
    for name in ("rows.txt", "pages", "all.yaml"):
        with pytest.raises(RecipeError, match="ends with .html"):
            write_page(Path(name), Path("all.yaml"))
    Path("taken").write_text("")
    with pytest.raises(RecipeError, match="cannot be written"):
        write_page(Path("taken/rows.html"), Path("all.yaml"))
    assert not (folder / "runs").exists() and not (folder / "home").exists()


def test_check_tells_what_is_read_of_each_source(folder: Path) -> None:
    mixed = [
        "data.train=[{path: chats.jsonl}, {path: documents.jsonl, format: documents, share: 0.25}]",
        "data.mixture={rows: 12}",
        "data.holdout.rows=2",
        "train.steps=6",
    ]
    (stage,) = check_recipe(Path("sft.yaml"), mixed).stages
    told = {row.name: row.value for row in stage.rows}
    assert (told["rows"], told["steps"]) == ("12", "6")
    read, plan = ([list(row) for row in table.rows] for table in stage.tables)
    assert [row[0] for row in read] == ["train chats.jsonl", "train documents.jsonl", "holdout chats.jsonl"]
    assert read[0][1:4] == ["8", "6", "held_out 2"] and read[2][1:4] == ["2", "2", "0"]
    assert [(row[0], row[1]) for row in plan] == [("chats.jsonl", "18"), ("documents.jsonl", "6")]
    assert plan[0][5:] == ["3.00", "3x"]
    tables = {stage.name: len(stage.tables) for stage in check_recipe(Path("all.yaml")).stages}
    assert tables == {"base (pretrain)": 1, "sft (sft)": 2, "reward (reward)": 2, "ppo (ppo)": 1}


def test_a_run_asks_for_the_evaluations_it_was_decontaminated_against(folder: Path) -> None:
    asked = ["data.decontaminate={against: [{path: prompts.jsonl}, {path: new.jsonl}]}"]
    (folder / "new.jsonl").write_text('{"prompt": "Which colour has ball 3?"}\n')
    with pytest.raises(DataError, match=r"chats\.jsonl: \{'contaminated': 8\}"):
        run_recipe(Path("sft.yaml"), asked)
    (folder / "prompts.jsonl").write_text('{"prompt": "What else?"}\n')
    assert run_recipe(Path("sft.yaml"), asked).status == "done"
    manifest = json.loads((folder / "runs/sft/manifest.json").read_text())
    assert manifest["data"]["train"][0]["dropped"] == {"contaminated": 1}
    assert [source["path"] for source in manifest["data"]["against"]] == ["prompts.jsonl", "new.jsonl"]
    assert run_recipe(Path("sft.yaml"), asked).status == "already_done"
    (folder / "new.jsonl").write_text('{"prompt": "Which colour has ball 4?"}\n')
    with pytest.raises(RunError, match=r"made from something else:\n.*new.jsonl: its bytes had sha256"):
        run_recipe(Path("sft.yaml"), asked)
    (folder / "new.jsonl").write_text('{"prompt": 5}\n')
    with pytest.raises(DataError, match="new.jsonl:1"):
        check_recipe(Path("sft.yaml"), [*asked, "output=runs/other"])


def test_a_base_is_another_one_where_its_evaluations_are(folder: Path) -> None:
    def fingerprint(path: str) -> str:
        recipe = load_recipe(
            Path("base.yaml"), [f"data.decontaminate={{against: [{{path: {path}}}]}}"]
        ).recipe
        assert isinstance(recipe, PretrainRecipe)
        return pretrain_fingerprint(recipe)

    (folder / "moved").mkdir()
    (folder / "moved" / "prompts.jsonl").write_bytes((folder / "prompts.jsonl").read_bytes())
    assert fingerprint("prompts.jsonl") == fingerprint("moved/prompts.jsonl") != pretrain_fingerprint(_base())
    (folder / "prompts.jsonl").write_text('{"prompt": "What else?"}\n')
    assert fingerprint("prompts.jsonl") != fingerprint("moved/prompts.jsonl")


def test_check_counts_the_answers_of_an_evaluation(folder: Path) -> None:
    source = "[{path: prompts.jsonl, format: prompts}]"
    (folder / "evaluate.yaml").write_text(
        "stage: evaluate\noutput: runs/evaluate\nmodels: {base: base.yaml, sft: sft.yaml}\nreference: sft\n"
        f"suites:\n  tasks: {{items: {source}}}\n  prompts: {source}\n  examples: {source}\n"
        "  samples_per_prompt: 2\n  best_of: 5\n  shots: [1, 3]\n  few_shot: [base]\n"
        "sampling: {max_new_tokens: 40}\n"  # of a context of 64
    )
    (stage,) = check_recipe(Path("evaluate.yaml")).stages
    (why,) = [row.why for row in stage.rows if row.name == "time"]
    # 8 tasks by 2 models and by one in 2 styles at 2 numbers of shots; 8 prompts: 1 + 2 and 1 + 5 answers.
    assert f"for {8 * (2 + 4) + 8 * (3 + 6)} answers" in why
    empty = ["suites={documents: [{path: documents.jsonl, format: documents}]}", "reference=null"]
    (stage,) = check_recipe(Path("evaluate.yaml"), empty).stages
    assert [row.name for row in stage.rows if row.name in ("documents", "time")] == ["documents"]


TASKS = "data.train=[{path: tasks/*.yaml, format: tasks, shots: [0, 1], rationale: 0.2}]"


def test_tasks_are_planned_shown_run_and_their_rows_watched(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_task(folder / "tasks", rows=nli_rows(12))
    (planned,) = check_recipe(Path("sft.yaml"), [TASKS, "train.steps=6"]).stages
    (task,) = [row for row in planned.rows if row.name == "task nli"]
    assert task.value == "24" and "claim: " in task.why  # 6 steps of 4 rows: two epochs of 12
    show_recipe(Path("sft.yaml"), [TASKS], count=2)
    assert "task nli: 12" in capsys.readouterr().out
    assert run_recipe(Path("sft.yaml"), [TASKS]).status == "done"
    assert run_recipe(Path("sft.yaml"), [TASKS]).status == "already_done"
    with (folder / "tasks/nli.jsonl").open("a") as file:
        file.write(json.dumps(nli_rows(13)[-1]) + "\n")
    with pytest.raises(RunError, match=r"tasks/\*.yaml: its bytes had sha256"):
        run_recipe(Path("sft.yaml"), [TASKS])


def test_a_wrong_task_is_told_before_its_base_is_made(folder: Path) -> None:
    write_task(folder / "tasks", NLI.replace("{{ premise }}", "{{ premis }}"))
    with pytest.raises(DataError) as told:
        run_recipe(Path("sft.yaml"), [TASKS])
    assert len(told.value.problems) == 4 and 'did you mean "premise"?' in str(told.value)
    assert not (folder / "home").exists()


def test_the_hub_and_streams_train_like_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base and an SFT of them: `check` says what is not known, a finished run stays finished, a new commit counts."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    keep_data_set(folder / "cache", "you/text", {"train": pipeline_rows()["documents"]})
    keep_data_set(folder / "cache", "you/chats", {"sft": pipeline_rows()["chats"]})
    (folder / "base.yaml").write_text(BASE.replace("path: documents.jsonl", "path: hub:you/text"))
    streamed = "data.train=[{path: hub:you/chats, split: sft, streaming: true, take: 6}]"
    (planned,) = check_recipe(Path("sft.yaml"), [streamed]).stages
    told = {row.name: (row.value, row.why) for row in planned.rows}
    assert told["rows"][0] == "6" and told["stream hub:you/chats"][0] == "6 rows"
    assert "how many follow is not known" in told["stream hub:you/chats"][1]
    assert run_recipe(Path("sft.yaml"), [streamed]).status == "done"
    assert run_recipe(Path("sft.yaml"), [streamed]).status == "already_done"
    (source,) = json.loads((folder / "runs/sft/manifest.json").read_text())["data"]["train"]
    assert (source["path"], source["rows_read"], source["rows_used"]) == ("hub:you/chats", 6, 6)
    before = pretrain_fingerprint(_base())
    shutil.rmtree(folder / "cache" / "you___text")
    keep_data_set(folder / "cache", "you/text", {"train": pipeline_rows()["documents"]}, commit="2" * 40)
    assert pretrain_fingerprint(_base()) != before
    with pytest.raises(DataError, match="hub:you/chts: the Hub cannot be reached"):
        run_recipe(Path("sft.yaml"), ["data.train=[{path: hub:you/chts}]", "output=runs/none"])
    assert not (folder / "runs/none").exists()
