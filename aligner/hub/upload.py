"""Publishing: a run's model as a folder that anyone can load, and that folder on the Hub.

What leaves the machine is an explicit list of files; no absolute path of the publisher's disk is among them.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from aligner.errors import Problem, RunError
from aligner.hub.ask import CONNECTION_ERRORS
from aligner.hub.card import CardFacts, Kind, render_card
from aligner.hub.example import example_of
from aligner.run.manifest import Manifest
from aligner.run.write import write_folder, write_json, write_text

ALLOWED = (
    "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors",
    "config.json", "generation_config.json", "adapter_config.json", "reward_stats.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
VOCABULARIES = frozenset(
    {"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"}
)
CARD = "README.md"
COMMIT = re.compile("[0-9a-f]{40}")
AGAIN = "the same command goes on: what has arrived is not sent again"


@dataclass(frozen=True)
class Published:
    """What was prepared, and where it is on the Hub (None after a dry run)."""

    files: list[str]
    merged: bool
    url: str | None


def publish(
    run_path: Path,
    repo_id: str,
    *,
    private: bool = True,
    dry_run_folder: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Published:
    """Upload a finished run's model, or with `dry_run_folder` only write the exact folder that would be uploaded.

    Files that the repository has are not sent again, so an upload that was cut goes on where it stopped.

    The token is the Hub client's own (HF_TOKEN, or `hf auth login`) unless one is given. RunError for a run that is
    not finished, and for whatever the Hub refuses.
    """
    if dry_run_folder is not None:
        files, merged = prepare_folder(run_path, dry_run_folder, repo_id=repo_id)
        return Published(files, merged, None)
    aside = run_path / "publish"
    files, merged = prepare_folder(run_path, aside, repo_id=repo_id)
    try:
        url = _upload(aside, repo_id, private=private, api=HfApi(endpoint=endpoint, token=token))
    finally:
        shutil.rmtree(aside)
    return Published(files, merged, url)


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RunError(
            Problem("--repo", f'"{repo_id}" is no repository name', "write it as you/name")
        ) from error


def _upload(folder: Path, repo_id: str, *, private: bool, api: HfApi) -> str:
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            allow_patterns=[*ALLOWED, CARD],
            commit_message="Upload a model made with aligner",
        )
    except OfflineModeIsEnabled as error:
        raise RunError(
            Problem("publish", "the Hub client is set to stay offline", "unset HF_HUB_OFFLINE")
        ) from error
    except HfHubHTTPError as error:
        raise _refused(repo_id, error) from error
    except (CONNECTION_ERRORS, RuntimeError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # of a single file: the client wraps it
            raise _refused(repo_id, error.__cause__) from error
        fault = f"the Hub cannot be reached ({error.__cause__ or error})"
        raise RunError(Problem(repo_id, fault, f"check the network; {AGAIN}")) from error
    return str(url)


def _refused(repo_id: str, error: HfHubHTTPError) -> RunError:
    status = error.response.status_code if error.response is not None else 0
    login = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
    remedy = login if status in (401, 403, 404) else AGAIN
    return RunError(Problem(repo_id, f"the Hub refused the upload ({error})", remedy))


def prepare_folder(run_path: Path, target: Path, *, repo_id: str) -> tuple[list[str], bool]:
    """Write to `target` what is published of a run; returns the file names and whether an adapter was merged.

    An adapter on a base that lies on this machine could not be loaded by anyone else: it is merged into full weights.
    """
    _check_name(repo_id)
    manifest = Manifest.read(run_path)
    model = run_path / "model"
    if manifest.status != "finished" or not model.is_dir():
        what = f"there is no finished model here (stage {manifest.stage}, {manifest.status})"
        remedy = "finish the run first: start the same command again"
        if manifest.stage == "pipeline":
            remedy = "name the folder of one of its stages"
        raise RunError(Problem(str(run_path), what, remedy))
    _check_target(target)
    adapter = _read_json(model / "adapter_config.json")
    local_base = bool(adapter) and _is_local(str(adapter["base_model_name_or_path"]))
    with write_folder(target) as folder:
        if local_base:
            _write_merged(model, folder, has_head=_has_score_head(manifest, model))
        else:
            _copy_allowed(model, folder)
        _keep_only_allowed(folder)
        for config in folder.glob("*.json"):
            _without_local_paths(config)
        has_head = _has_score_head(manifest, model)
        facts = _facts(repo_id, manifest, adapter, merged=local_base, has_head=has_head)
        facts = replace(facts, example=example_of(run_path))
        if adapter and not local_base:  # whoever loads it gets the very base that it was trained on
            settings = folder / "adapter_config.json"
            write_json(settings, _read_json(settings) | {"revision": facts.hub_revision})
        write_text(folder / CARD, render_card(manifest, facts))
        check_no_private_paths(folder, run_path)
        files = sorted(path.name for path in folder.iterdir())
    return files, local_base


def _has_score_head(manifest: Manifest, model: Path) -> bool:
    """A reward model that is no language model; one that scores by likelihood loads as what it is, a language model."""
    stats = _read_json(model / "reward_stats.json")
    return manifest.stage == "reward" and stats.get("scoring", {}).get("kind", "head") == "head"


def _facts(
    repo_id: str, manifest: Manifest, adapter: dict[str, Any], *, merged: bool, has_head: bool
) -> CardFacts:
    is_adapter = bool(adapter) and not merged
    kind: Kind = "adapter" if is_adapter else "model"
    if has_head:
        kind = "reward_adapter" if is_adapter else "reward"
    base = manifest.parents.get("base", "")
    name, _, revision = base.rpartition("@")
    if is_adapter:
        hub_base = str(adapter["base_model_name_or_path"])
        said = (_base_commit(hub_base, manifest), str(adapter.get("revision")))
        commit = next(filter(COMMIT.fullmatch, said), None)
        if commit is None:
            fault = f"nothing says on which commit of {hub_base} this adapter was trained"
            remedy = "write the commit's 40 digits as `revision` into model/adapter_config.json"
            raise RunError(Problem(repo_id, fault, remedy))
        return CardFacts(repo_id, kind, hub_base, commit, merged)
    if "#" in base or not name:
        return CardFacts(repo_id, kind, None, None, merged)
    return CardFacts(repo_id, kind, name, revision, merged)


def _base_commit(hub_base: str, manifest: Manifest) -> str:
    """The commit of a Hub base, as the run that began with it has noted; earlier runs lie where they were named."""
    parent = manifest.parents.get("base", "")
    name, _, commit = parent.rpartition("@")
    if name == hub_base:
        return commit
    folder = Path(parent.rpartition("#")[0])
    run = folder.parent if folder.name == "model" else folder
    is_run = folder.name and (run / "manifest.json").exists()
    return _base_commit(hub_base, Manifest.read(run)) if is_run else ""


def _write_merged(model: Path, folder: Path, *, has_head: bool) -> None:
    """The adapter's model as full weights with its tokenizer. Imports torch, which plain copying does not need."""
    from aligner.models.adapters import merge_adapter
    from aligner.models.load import load_scorer, load_trained, save_model

    loaded = load_scorer(model) if has_head else load_trained(model)
    merged = merge_adapter(loaded.model)  # type: ignore[arg-type]  # the folder is known to hold an adapter
    save_model(replace(loaded, model=merged), folder, base_folder=folder)
    if (model / "reward_stats.json").exists():
        shutil.copyfile(model / "reward_stats.json", folder / "reward_stats.json")


def _copy_allowed(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and _is_allowed(path.name):
            shutil.copyfile(path, folder / path.name)


def _keep_only_allowed(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not _is_allowed(path.name):
            path.unlink()


def _is_allowed(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in ALLOWED)


def _check_target(target: Path) -> None:
    """A new or empty folder, or one that an earlier dry run wrote."""
    if not target.exists():
        return
    foreign = [path.name for path in target.iterdir() if not (_is_allowed(path.name) or path.name == CARD)]
    if not target.is_dir() or foreign:
        raise RunError(
            Problem(str(target), f"holds other files ({', '.join(foreign[:3])})", "name a new folder")
        )


def _is_local(base: str) -> bool:
    return base.startswith(("/", ".", "~")) or Path(base).exists() or base.count("/") > 1


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _without_local_paths(config: Path) -> None:
    """Libraries note where a model was loaded from; such keys go when they hold a path of this disk."""
    values = _read_json(config)
    kept = {
        key: value
        for key, value in values.items()
        if not (key.endswith("name_or_path") and isinstance(value, str) and _is_local(value))
    }
    if kept != values:
        write_json(config, kept)


def check_no_private_paths(folder: Path, run_path: Path) -> None:
    """RunError when a file of `folder` holds the path of the run or of the home folder.

    Of weights only the header is read, and vocabularies are left out: what looks like a path there is a word.
    """
    private = {str(run_path.resolve()), f"{Path.home()}/"} - {"//"}
    for path in sorted(folder.rglob("*")):
        content = _text_of(path) if path.is_file() and path.name not in VOCABULARIES else b""
        for text in private:
            if text.encode() in content:
                what = f"{path.name} holds a path of this machine ({text})"
                raise RunError(
                    Problem(str(run_path), what, "take it out of the model folder, then publish again")
                )


def _text_of(path: Path) -> bytes:
    """All of a file; of safetensors the JSON header (its first 8 bytes are its length)."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))
