"""Where a model lies (folder, run folder, Hub id), whether it is an adapter, and which weights exactly it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from aligner.errors import ModelError, Problem
from aligner.models.adapters import ADAPTER_WEIGHTS
from aligner.models.weights import ADAPTER_CONFIG, CONFIG, folder_identity, has_config, model_in
from aligner.models.weights import weights_sha256 as weights_sha256  # a model's identity is asked for here

TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS_INDEX = "model.safetensors.index.json"
RUN_CODE = ("_attn_implementation_internal", "trust_remote_code", "megatron_config")
SCORER = "ForSequenceClassification"
_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")


@dataclass(frozen=True)
class Source:
    """A model's place. `name` is an absolute folder or a Hub id; `revision` belongs to Hub ids alone."""

    name: str
    revision: str | None
    is_folder: bool

    def file(self, filename: str) -> Path | None:
        """The local path of one of the model's small files (fetched for a Hub id), or None where it has none."""
        if self.is_folder:
            path = Path(self.name) / filename
            return path if path.is_file() else None
        with loading(self):
            found = cached_file(
                self.name, filename, revision=self.revision, _raise_exceptions_for_missing_entries=False
            )
        return Path(found) if found else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What its adapter_config.json or config.json says; {} where it has none."""
        path = self.file(ADAPTER_CONFIG if self.is_adapter else CONFIG)
        return _read_settings(path) if path else {}

    @cached_property
    def is_adapter(self) -> bool:
        """A PEFT adapter, to be put on another model's weights."""
        return self.file(ADAPTER_CONFIG) is not None

    @cached_property
    def adapter_config(self) -> PeftConfig:
        """How the adapter was made, and over which base."""
        with loading(self):
            return PeftConfig.from_pretrained(self.name, revision=self.revision)

    @cached_property
    def is_scorer(self) -> bool:
        """A reward model: it gives a number, not text."""
        if self.is_adapter:
            return self.adapter_config.task_type == "SEQ_CLS"
        architectures = self.settings.get("architectures")
        names = architectures if isinstance(architectures, list) else []
        return any(str(name).endswith(SCORER) for name in names)

    @cached_property
    def identity(self) -> str:
        """ "folder#first 12 digits of the weights' sha256", or "id@commit"."""
        if self.is_folder:
            return folder_identity(Path(self.name))
        config = self.file(ADAPTER_CONFIG) or self.file(CONFIG)
        return f"{self.name}@{extract_commit_hash(str(config), None) or self.revision or 'main'}"


def resolve_source(base: str, revision: str | None = None) -> Source:
    """The place a recipe names; a run folder stands for its model/."""
    folder = Path(base).expanduser()
    if not folder.exists():
        if _looks_like_path(base):
            raise ModelError(
                Problem(base, "no such folder", "give a folder, a run folder or a Hub id (owner/name)")
            )
        return Source(name=base, revision=revision, is_folder=False)
    if revision is not None:
        raise ModelError(
            Problem(base, f'revision "{revision}" is for Hub ids, and this is a folder', "leave revision out")
        )
    return Source(name=str(_model_folder(folder).resolve()), revision=None, is_folder=True)


def base_source(adapter: Source) -> Source:
    """The full model an adapter was trained on."""
    name = adapter.adapter_config.base_model_name_or_path
    where = f"{adapter.name}/{ADAPTER_CONFIG}"
    if not name:
        raise ModelError(
            Problem(where, "does not say which base it belongs to", "set base_model_name_or_path")
        )
    try:
        source = resolve_source(name, adapter.adapter_config.revision)
    except ModelError as error:
        remedy = "put the base back, or write its new place into base_model_name_or_path"
        raise ModelError(
            Problem(where, f"the adapter's base {name} cannot be used: {error}", remedy)
        ) from error
    if source.is_adapter:
        raise ModelError(
            Problem(where, f"its base {name} is an adapter itself", "merge that one first (merge: true)")
        )
    return source


def check_harmless(source: Source) -> None:
    """ModelError where a model brings code, names some, or has weights that are pickled.

    transformers has followed such keys of config.json although it was told not to trust remote code (CVE-2026-4372,
    CVE-2026-5241), and loads whatever files `transformers_weights` and the index of the weights name. `auto_map` of a
    family that transformers has itself is never followed, and stays.
    """
    found = sorted(set(_code_keys(source.settings)))
    if found:
        where = source.file(ADAPTER_CONFIG if source.is_adapter else CONFIG)
        what = f"its settings name code to be run ({', '.join(found)})"
        raise ModelError(Problem(str(where), what, "take another model; there is no switch that trusts it"))
    if source.is_adapter and source.file(ADAPTER_WEIGHTS) is None:
        raise ModelError(Problem(source.name, f"has no {ADAPTER_WEIGHTS}", "save the adapter as safetensors"))
    index = None if source.is_adapter else source.file(WEIGHTS_INDEX)
    shards = _read_settings(index).get("weight_map") if index else {}
    names = shards.values() if isinstance(shards, dict) else [shards]
    if foreign := sorted({str(name) for name in names if not _SHARD.fullmatch(str(name))}):
        what = f"names weights that are no safetensors beside it ({', '.join(foreign[:3])})"
        raise ModelError(
            Problem(str(index), what, "take another model, or convert its weights to safetensors")
        )


def _read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model; ModelError where there is none."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(Problem(str(path), f"not JSON ({error})", "fetch the model again")) from error
    if not isinstance(settings, dict):
        raise ModelError(Problem(str(path), "not a JSON object", "fetch the model again"))
    return settings


def _code_keys(config: object) -> Iterator[str]:
    """Keys that run code, however deep they lie."""
    if isinstance(config, list):
        for value in config:
            yield from _code_keys(value)
    if isinstance(config, dict):
        native = config.get("model_type") in CONFIG_MAPPING
        for key, value in config.items():
            if _runs_code(key, value) or (key == "auto_map" and not native):
                yield key
            yield from _code_keys(value)


def _runs_code(key: str, value: object) -> bool:
    """Whether a key has a library import or load what its value names."""
    if key.removesuffix("_internal").endswith("_implementation") and "/" in str(value):
        return True  # a kernel of the Hub
    if key == "auto_mapping":  # of an adapter: the module that its base's class is imported from
        return isinstance(value, dict) and not str(value.get("parent_library")).startswith("transformers.")
    if key == "transformers_weights":
        return not str(value).endswith(".safetensors")
    return key in RUN_CODE and value is not None


@contextmanager
def loading(source: Source) -> Iterator[None]:
    """Turns what the libraries say about a model that cannot be loaded into one `ModelError`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = (
            "the folder may be damaged or half written; make it again"
            if source.is_folder
            else "check the id, the revision, the network and, for a private model, `hf auth login`"
        )
        raise ModelError(Problem(source.name, f"cannot be loaded: {first_line}", remedy)) from error


def _looks_like_path(base: str) -> bool:
    return base.startswith((".", "/", "~")) or base.count("/") > 1 or base.endswith("/")


def _model_folder(folder: Path) -> Path:
    """`folder` or its model/, whichever holds a model with safetensors weights."""
    if not folder.is_dir():
        raise ModelError(Problem(str(folder), "is a file, not a model folder", "give the folder it lies in"))
    chosen = model_in(folder)
    if not has_config(chosen):
        _check_no_pipeline(folder)
        is_run = (folder / "recipe.yaml").is_file()
        fault = (
            "is a run that has no model yet" if is_run else f"holds no model: no {CONFIG} or {ADAPTER_CONFIG}"
        )
        remedy = (
            "run its recipe to the end first"
            if is_run
            else "give a folder that from_pretrained can load, or a run folder"
        )
        raise ModelError(Problem(str(folder), fault, remedy))
    if not any(chosen.glob("*.safetensors")):
        pickled = any(chosen.glob("*.bin"))
        remedy = "convert its .bin file to safetensors" if pickled else "copy its model.safetensors there"
        raise ModelError(Problem(str(chosen), "has no safetensors weights", remedy))
    return chosen


def _check_no_pipeline(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    if recipe.is_file() and "stage: pipeline" in recipe.read_text(encoding="utf-8").splitlines():
        models = [
            str(child) for child in sorted(folder.iterdir()) if child.is_dir() and has_config(model_in(child))
        ]
        fault = "is the folder of a pipeline, which has a model for each stage"
        remedy = (
            f"name one of its stages: {', '.join(models)}" if models else "run its recipe to the end first"
        )
        raise ModelError(Problem(str(folder), fault, remedy))
