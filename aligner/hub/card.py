"""The model card: what a published model is, what it was made from, what it scored, and how to load it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from aligner.hub.example import ANY, Example
from aligner.run.manifest import Manifest
from aligner.run.metrics import describe

Kind = Literal["model", "adapter", "reward", "reward_adapter"]
WHAT: dict[str, str] = {
    "pretrain": "a language model trained from scratch",
    "sft": "a language model tuned on instructions",
    "reward": "a reward model: it scores answers, higher is better",
    "ppo": "a language model tuned with reinforcement learning (PPO) against a reward",
    "dpo": "a language model tuned on pairs of answers (DPO)",
    "kto": "a language model tuned on good and bad answers (KTO)",
    "grpo": "a language model tuned with reinforcement learning (GRPO) against a reward",
    "rejection": "a language model tuned on the best of its own answers (rejection sampling)",
    "rloo": "a language model tuned with reinforcement learning (RLOO) against a reward",
}
_LOADER: dict[Kind, tuple[str, str]] = {
    "model": ("transformers", "AutoModelForCausalLM"),
    "adapter": ("peft", "AutoPeftModelForCausalLM"),
    "reward": ("transformers", "AutoModelForSequenceClassification"),
    "reward_adapter": ("peft", "AutoPeftModelForSequenceClassification"),
}


@dataclass(frozen=True)
class CardFacts:
    """What the card says beside the manifest: the repository, what its folder holds, and where its base lies."""

    repo_id: str
    kind: Kind
    hub_base: str | None  # Hub id of the base; None when it was made on the publisher's machine
    hub_revision: str | None
    merged: bool  # an adapter was merged into the weights for publishing
    example: Example = ANY


def render_card(manifest: Manifest, facts: CardFacts) -> str:
    """README.md: YAML header for the Hub, then plain sections. No licence is set: that is the publisher's to choose."""
    sections = [
        f"---\n{_header(manifest, facts)}---",
        f"# {facts.repo_id.split('/')[-1]}",
        f"This is {_what(manifest, facts)}, made with aligner {manifest.versions.get('aligner', '')}.",
        "## How to load it\n\n```python\n" + loading_code(facts) + "```",
        "## What it was made from\n\n" + _origin(manifest, facts),
        "## Results\n\n" + _results(manifest.results),
        "## How it was made\n\n" + _making(manifest),
        "## Licence\n\nNone is set yet. Before you make this public, add a `license:` line to the header of this file "
        "that fits the base model and the data.",
    ]
    return "\n\n".join(sections) + "\n"


def _what(manifest: Manifest, facts: CardFacts) -> str:
    if manifest.stage == "reward" and facts.kind in ("model", "adapter"):
        return (
            "a reward model that is a language model: the reward of an answer is beta x log p(answer | prompt), "
            "with beta, and the mean and std over sampled answers, in reward_stats.json"
        )
    return WHAT.get(manifest.stage, "a language model")


def loading_code(facts: CardFacts) -> str:
    """Python that loads this repository with plain transformers or peft and uses it once."""
    library, loader = _LOADER[facts.kind]
    is_reward = facts.kind in ("reward", "reward_adapter")
    imports = (
        f"from transformers import {loader}, AutoTokenizer\n"
        if library == "transformers"
        else f"from peft import {loader}\nfrom transformers import AutoTokenizer\n"
    )
    arguments = f'"{facts.repo_id}"' + (", num_labels=1" if is_reward else "")
    lines = [
        imports,
        f"model = {loader}.from_pretrained({arguments})",
        f'tokenizer = AutoTokenizer.from_pretrained("{facts.repo_id}")',
        *_messages(facts.example, answered=is_reward),
        *(_REWARD_USE if is_reward else _CHAT_USE),
    ]
    return "\n".join(lines) + "\n"


def _messages(example: Example, *, answered: bool) -> Iterator[str]:
    """The example as Python; JSON spells its text as Python does."""
    yield f'messages = [{{"role": "user", "content": {json.dumps(example.question, ensure_ascii=False)}}}]'
    if answered:
        answer = json.dumps(example.answer, ensure_ascii=False)
        yield f'messages += [{{"role": "assistant", "content": {answer}}}]'


_CHAT_USE = (
    "inputs = tokenizer.apply_chat_template(",
    '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
    ")",
    'inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}',
    "output = model.generate(**inputs, max_new_tokens=64, pad_token_id=tokenizer.pad_token_id)",
    'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))',
)
_REWARD_USE = (
    'inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)',
    'inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}',
    "print(model(**inputs).logits[0, 0].item())  # the raw reward; reward_stats.json has its mean and std",
)


def _header(manifest: Manifest, facts: CardFacts) -> str:
    """YAML lines; their values are written as JSON, which is YAML too."""
    header: dict[str, Any] = {
        "library_name": _LOADER[facts.kind][0],
        "pipeline_tag": "text-classification" if facts.kind.startswith("reward") else "text-generation",
        "tags": ["aligner", manifest.stage],
    }
    if facts.hub_base:
        header["base_model"] = facts.hub_base
        header["base_model_relation"] = (
            "adapter" if facts.kind in ("adapter", "reward_adapter") else "finetune"
        )
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in header.items())


def _origin(manifest: Manifest, facts: CardFacts) -> str:
    lines = []
    if facts.hub_base:
        revision = f" at revision `{facts.hub_revision}`" if facts.hub_revision else ""
        lines.append(f"Base: [{facts.hub_base}](https://huggingface.co/{facts.hub_base}){revision}.")
    elif manifest.parents:
        lines += [
            f"{role.capitalize()}: {public_identity(identity)}."
            for role, identity in manifest.parents.items()
        ]
    else:
        lines.append("Base: none; the weights were trained from scratch.")
    if facts.merged:
        lines.append(
            "Trained as a LoRA adapter on a base that is not published; it is merged into these weights."
        )
    trained_on = [value for part, value in manifest.data.items() if part in ("train", "curriculum")]
    rows = [source for source in _sources(trained_on or manifest.data) if source.get("rows_used")]
    if rows:
        lines += ["", "| data | format | rows used | sha256 |", "|---|---|---:|---|"]
        lines += [
            f"| {_file_name(row)} | {row['format']} | {row['rows_used']} | `{row['sha256'][:16]}` |"
            for row in rows
        ]
    return "\n".join(lines)


def public_identity(identity: str) -> str:
    """A parent without its place on the publisher's disk: `path#hash` shows the hash, `id@revision` all of it."""
    if "#" in identity or identity.startswith(("/", ".", "~")):
        return f"made with aligner on the publisher's machine, weights `{identity.rpartition('#')[2]}`"
    return f"`{identity}`"


def _sources(report: object) -> list[Mapping[str, Any]]:
    """Every source report inside a data report, wherever it stands."""
    if isinstance(report, Mapping):
        if "rows_used" in report:
            return [report]
        return [source for value in report.values() for source in _sources(value)]
    if isinstance(report, Sequence) and not isinstance(report, str):
        return [source for value in report for source in _sources(value)]
    return []


def _file_name(source: Mapping[str, Any]) -> str:
    """The last part of the path: where data lie on the publisher's disk is nobody's business."""
    return PurePath(str(source.get("path", "data"))).name.replace("|", "\\|")


def _results(results: Mapping[str, float]) -> str:
    if not results:
        return "None were measured."
    rows = [f"| `{key}` | {value:.4g} | {describe(key)} |" for key, value in results.items()]
    return "\n".join(["| result | value | meaning |", "|---|---:|---|", *rows])


def _making(manifest: Manifest) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in manifest.versions.items())
    minutes = f"{manifest.seconds / 60:.1f} minutes" if manifest.seconds else "an unknown time"
    is_commit = re.fullmatch(r"[0-9a-f]{7,64}(\+changes)?", manifest.commit)
    commit = f" Code: commit `{manifest.commit}`." if is_commit else ""
    machine = f" on {manifest.hardware.cores} cores" if manifest.hardware else ""
    if manifest.hardware and manifest.hardware.gpus:
        machine = f" on {len(manifest.hardware.gpus)} x {manifest.hardware.gpus[0]}"
    return (
        f"Stage `{manifest.stage}`, seed {manifest.seed}, {minutes}{machine}.{commit} Versions: {versions}."
    )
