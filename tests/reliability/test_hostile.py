"""The corpus of hostile files: all of them refused in a word, or harmless; and a canary by which none was run."""

from __future__ import annotations

import pickle
import resource
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aligner.data.pieces import shown_row
from aligner.data.readers import read_source
from aligner.data.readers.tasks.read import check_tasks
from aligner.data.rows import Document, Origin
from aligner.data.show_page import Drops, StageView, render_page
from aligner.data.tokens import tokenize_conversation
from aligner.errors import AlignerError, DataError, ModelError, RecipeError
from aligner.models.load import load_model, load_scorer, load_trained
from aligner.models.sources import resolve_source
from aligner.recipe.data import SourceSpec
from aligner.recipe.load import load_recipe
from aligner.recipe.model import ModelSpec
from aligner.recipe.plan import PlanRow, PlanTable
from aligner.run.report import build_report
from aligner.start import _stored
from tests.data.chats import chat
from tests.models.runs import write_adapter, write_base
from tests.reliability import hostile
from tests.run import fake
from tests.tiny import tiny_tokenizer

Folders = tuple[Path, Path]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A base and an adapter over it, to be spoiled in copies."""
    root = tmp_path_factory.mktemp("good")
    base = write_base(root / "base")
    return base / "model", write_adapter(root / "adapter", base) / "model"


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hostile files would leave their mark: the folder that a user stands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / hostile.CANARY


def test_the_corpus_is_large_and_its_pickles_do_run(canary: Path) -> None:
    kinds = (hostile.REFUSED_MODELS, hostile.HARMLESS_MODELS, hostile.REFUSED_ADAPTERS, hostile.REFUSED_RECIPES,
             hostile.REFUSED_DATA, hostile.REFUSED_TASKS)  # fmt: skip
    assert sum(map(len, kinds)) + len(hostile.PROMPTS) >= 90
    pickle.loads(hostile.pickled(2))
    assert canary.exists()


@pytest.mark.parametrize("name", hostile.REFUSED_MODELS)
def test_hostile_models_are_refused(good: Folders, tmp_path: Path, canary: Path, name: str) -> None:
    folder = shutil.copytree(good[0], tmp_path / "there" / "model")
    hostile.REFUSED_MODELS[name](folder)
    loads = [
        lambda: load_trained(folder),
        lambda: load_model(ModelSpec(base=str(folder))),
        lambda: load_scorer(folder),
    ]
    if name not in hostile.OF_WEIGHTS:  # which `aligner check` does not read
        loads.append(lambda: _stored(str(folder)))
    for load in loads:
        with pytest.raises(ModelError) as caught:
            load()
        assert caught.value.exit_code == 2 and all(problem.remedy for problem in caught.value.problems)
    assert not canary.exists()


@pytest.mark.parametrize("name", hostile.HARMLESS_MODELS)
def test_what_lies_beside_good_weights_is_left_alone(
    good: Folders, tmp_path: Path, canary: Path, name: str
) -> None:
    folder = shutil.copytree(good[0], tmp_path / "there" / "model")
    hostile.HARMLESS_MODELS[name](folder)
    load_trained(folder)
    _stored(str(folder))
    assert not canary.exists()


@pytest.mark.parametrize("name", hostile.REFUSED_ADAPTERS)
def test_hostile_adapters_are_refused(good: Folders, tmp_path: Path, canary: Path, name: str) -> None:
    folder = shutil.copytree(good[1], tmp_path / "there" / "model")
    if name == "pickled adapter":
        (folder / "adapter_model.safetensors").rename(folder / "other.safetensors")
    hostile.REFUSED_ADAPTERS[name](folder)
    with pytest.raises(ModelError):
        load_trained(folder)
    with pytest.raises(ModelError):
        load_model(ModelSpec(base=str(folder)))
    with pytest.raises(ModelError):
        _stored(str(folder))
    assert resolve_source(str(folder)).is_adapter and not canary.exists()


@pytest.mark.parametrize("name", hostile.REFUSED_RECIPES)
def test_hostile_recipes_are_refused(tmp_path: Path, canary: Path, name: str) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "good.yaml").write_text(hostile.GOOD_RECIPE)
    load_recipe(tmp_path / "good.yaml")
    (tmp_path / "r.yaml").write_text(hostile.REFUSED_RECIPES[name], encoding="latin-1")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert not canary.exists() and not set("\x1b\x00") & set(str(caught.value))


@pytest.mark.parametrize("name", hostile.REFUSED_DATA)
def test_hostile_data_files_are_refused_and_take_little_memory(
    tmp_path: Path, canary: Path, name: str
) -> None:
    file, content = hostile.REFUSED_DATA[name]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / file).write_bytes(content())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for form in ("auto", "alpaca"):
        with pytest.raises(DataError) as caught:
            read_source(SourceSpec(path=str(tmp_path / "data" / file), format=form), "conversation")  # type: ignore[arg-type]
        assert not set("\x1b\x00\x80") & set(str(caught.value))
    with pytest.raises(DataError):
        read_source(SourceSpec(path=str(tmp_path / "data")), "conversation")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB
    assert not canary.exists() and [path.name for path in tmp_path.rglob("*")] == ["data", file]


@pytest.mark.parametrize("name", hostile.REFUSED_TASKS)
def test_hostile_tasks_are_refused(tmp_path: Path, canary: Path, name: str) -> None:
    folder = tmp_path / "a" / "b" / "tasks"
    folder.mkdir(parents=True)
    for place in (folder / "rows.jsonl", tmp_path / "rows.jsonl"):
        place.write_text('{"x": "1"}\n')
    (folder / "link.jsonl").symlink_to("/etc/hostname")
    text = hostile.REFUSED_TASKS[name]
    more = "" if "templates:" in text else 'templates: [{name: a, input: "{{ x }}", target: y}]\n'
    (folder / "t.yaml").write_text(f"name: t\n{text}{more}")
    spec = SourceSpec(path=str(folder / "t.yaml"), format="tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where we are is no way out either
        with pytest.raises(AlignerError) as caught:
            check_tasks([folder / "t.yaml"], spec)
            read_source(spec, "conversation")
    assert caught.value.exit_code == 2 and not canary.exists() and not (folder / hostile.CANARY).exists()


class Tags(HTMLParser):
    """What a browser would take for markup: every tag with its attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[f"{tag} {' '.join(sorted(name for name, _ in attrs))}"] += 1

    def handle_comment(self, data: str) -> None:
        self.tags[f"comment {data}"] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(prompt: str) -> str:
    """The page of `aligner show --html`, the prompt everywhere that a stranger's words come to."""
    tokenizer = tiny_tokenizer()
    rows = [shown_row(tokenize_conversation(chat(prompt, prompt), tokenizer, 400), tokenizer)]
    drops = [Drops(prompt, [(prompt, 1, [(str(Document(Origin(prompt, 1)).origin), prompt)])])]
    table = PlanTable(("source", "read"), ((prompt, "7"),))
    return render_page(prompt, [StageView(prompt, "sft", rows, [table], [PlanRow(prompt, "1")], drops)])


@pytest.mark.parametrize("prompt", hostile.PROMPTS)
def test_hostile_prompts_are_text_on_every_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    """The oracle: the same page of a harmless word has the same tags and attributes."""
    pages: dict[str, list[Tags]] = {}
    for number, text in enumerate((prompt, "word")):
        monkeypatch.setattr(fake, "NASTY", text)
        report = build_report(fake.quickstart(tmp_path / str(number) / "run")).read_text()
        pages[text] = [Tags(report), Tags(shown(text))]
    for evil, plain in zip(*pages.values(), strict=True):
        assert evil.tags == plain.tags and plain.tags
        assert "alert(1)" in evil.text or "alert(1)" not in prompt
