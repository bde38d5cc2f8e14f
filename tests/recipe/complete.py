"""One recipe of every stage with every key written out, for the tests to break."""

from __future__ import annotations

from pathlib import Path

_LORA_MODEL = """\
model:
  base: you/base
  revision: main
  lora:
    rank: 8
    alpha: 16
    dropout: 0.1
    targets:
      - q_proj
      - v_proj
    modules_to_save:
      - model.norm
  merge: true
  quantize: 4bit
"""
_TRAIN = """\
train:
  epochs: 2
  steps: null
  rows_per_step: 32
  rows_per_device: 16
  learning_rate: 1e-3
  schedule: linear
  warmup_share: 0.1
  optimizer: adamw
  weight_decay: 0.01
  max_grad_norm: 1.0
  precision: bf16
  log_every: 5
  evaluate_every: 50
  checkpoint_every: 100
"""
_SOURCE = """\
    - path: {path}
      format: {format}
      cap: 30
      weight: 0.5
"""
_SAMPLING = """\
sampling:
  max_new_tokens: 16
  temperature: 0.7
"""


def _source(path: str, form: str) -> str:
    return _SOURCE.format(path=path, format=form)


_DATA = """\
data:
  train:
{train}  holdout:
    sources:
{holdout}  max_length: 128
  cut_answers: 0.02
"""


_MIXTURE = """\
    - path: train.jsonl
      format: pairs
      share: 0.1
  mixture:
    by: examples
    rows: 100
    temperature: null
    rate_cap: 50
    each: source
    share_of: tokens
"""
_DECONTAMINATE = f"""\
  decontaminate:
    against:
{_source("held.jsonl", "prompts")}    holdout: true
    ngram: 8
    ignore_above: 10
    near_duplicates: true
    overlap: error
"""


def _data(form: str) -> str:
    held = _source("held.jsonl", form).replace("    ", "      ", 1).replace("\n      ", "\n        ")
    return _DATA.format(train=_source("train.jsonl", form), holdout=held)


def _mixed(data: str) -> str:
    """The training source without its weight, and a mixture."""
    return data.replace("      weight: 0.5\n", _MIXTURE, 1)


def _watch() -> str:
    return f"""\
watch:
  holdout:
{_source("held.jsonl", "prompts")}  holdout_rows: 16
  max_prompt_tokens: 64
"""


_REWARD = """\
reward:
  - model: runs/reward/one/model
    weight: 0.5
  - function: "judges:politeness"
    clip: 2.0
    weight: 0.5
  - rules: train.jsonl
    weight: 0.5
  - http:
      url: http://localhost:8000/score
      timeout_seconds: 5
      retries: 1
    weight: 0.5
"""

_DENSE = _REWARD.replace("    clip:", "    dense: true\n    clip:")


def _prompts() -> str:
    return f"""\
data:
  train:
{_source("train.jsonl", "prompts")}  holdout:
{_source("held.jsonl", "prompts")}  holdout_rows: 16
  max_prompt_tokens: 64
{_DECONTAMINATE}  clean:
    deduplicate: true
"""


def _group(stage: str) -> str:
    return f"""\
{stage}:
  steps: 10
  prompts_per_step: 8
  samples_per_prompt: 2
  epochs: 2
  minibatches: 4
  rows_per_device: 2
  learning_rate: 1e-4
  gain_learning_rate: 1e-2
  missing_eos:
    mode: subtract
    value: 0.5
  max_grad_norm: 0.5
  evaluate_every: 5
  checkpoint_every: 5
  precision: fp32
"""


_PAIR_RULES = """\
  pairs:
    conflicts: drop
    repeats: once
    weigh: prompt
"""
_HEAD = "seed: 3\noutput: runs/one\n"
COMPLETE: dict[str, str] = {
    "pretrain": f"""\
stage: pretrain
{_HEAD}model:
  architecture: llama
  hidden_size: 64
  layers: 2
  heads: 4
  kv_heads: 2
  intermediate_size: 128
  context_length: 128
  tie_embeddings: false
tokenizer:
  vocab_size: 512
data:
  train:
{_source("train.jsonl", "documents")}  holdout:
    rows: 20
    families:
      - held
{_DECONTAMINATE}  clean:
    min_chars: 10
    max_chars: 1000
    min_letter_share: 0.5
    deduplicate: true
    repair: false
    mask:
      - email
    rules:
      - gopher_quality
      - c4_curly_brace
    words: []
    max_words: 0.1
    languages:
      - en
    near_duplicates: true
    perplexity:
      scores: runs/scores.jsonl
      min_bits_per_byte: 0.5
      max_bits_per_byte: 3.0
      quantiles:
        - 0.05
        - 0.95
  block_length: 64
  isolate_documents: true
{_TRAIN}""",
    "sft": f"stage: sft\n{_HEAD}{_LORA_MODEL}{_data('messages')}{_TRAIN}  packing: true\n  pack_length: 256\n",
    "reward": f"""\
stage: reward
{_HEAD}{_LORA_MODEL}{_mixed(_data("pairs"))}{_DECONTAMINATE}{_PAIR_RULES}{_TRAIN}score: likelihood
beta: 0.5
nll_coef: 0.1
normalise_on:
{_source("train.jsonl", "prompts")}normalise_rows: 64
{_SAMPLING}""",
    "ppo": f"""\
stage: ppo
{_HEAD}{_LORA_MODEL}{_DENSE}{_prompts()}{_SAMPLING}ppo:
  steps: 10
  prompts_per_step: 8
  samples_per_prompt: 2
  epochs: 2
  minibatches: 4
  learning_rate: 1e-4
  value_learning_rate: 1e-3
  gain_learning_rate: 1e-2
  clip: 0.1
  clip_high: 0.3
  dual_clip: 3
  value_clip: 0.1
  value_coef: 0.5
  value: adapter
  value_init: reward
  value_warmup_steps: 2
  gamma: 0.99
  lam: 0.9
  kl_coef: 0.1
  adaptive_kl:
    target: 6
    horizon: 10000
  target_kl: 0.05
  entropy_coef: 0.01
  missing_eos:
    mode: subtract
    value: 0.5
  max_grad_norm: 0.5
  guards:
    kl:
      limit: 30
      act: stop
    value:
      limit: 20
      act: warn
    length:
      limit: 3
      act: warn
    zero_gradient: stop
  evaluate_every: 5
  keep_best: gold
  checkpoint_every: 5
  precision: fp32
ptx:
  sources:
{_source("train.jsonl", "documents")}  coef: 0.1
  rows_per_step: 16
  block_length: 64
""",
    "kto": f"""\
stage: kto
{_HEAD}{_LORA_MODEL}{_REWARD}{_mixed(_data("pairs"))}{_DECONTAMINATE}{_PAIR_RULES}{_TRAIN}{_watch()}{_SAMPLING}kto:
  beta: 0.2
  loss: apo_zero
  desirable_weight: 1.5
  undesirable_weight: 0.5
""",
    "grpo": f"""\
stage: grpo
{_HEAD}{_LORA_MODEL}{_REWARD}{_prompts()}{_SAMPLING}{_group("grpo")}  clip: 0.1
  kl_coef: 0.1
  scale: none
  loss: dr_grpo
""",
    "rejection": f"""\
stage: rejection
{_HEAD}{_LORA_MODEL}{_REWARD}{_prompts()}{_SAMPLING}{_group("rejection")}  keep: 1
""",
    "rloo": f"""\
stage: rloo
{_HEAD}{_LORA_MODEL}{_REWARD}{_prompts()}{_SAMPLING}{_group("rloo")}  clip: 0.1
  kl_coef: 0.1
  whiten: true
""",
    "dpo": f"""\
stage: dpo
{_HEAD}{_LORA_MODEL}{_REWARD}{_mixed(_data("pairs"))}{_DECONTAMINATE}{_PAIR_RULES}{_TRAIN}{_watch()}{_SAMPLING}dpo:
  beta: 0.2
  loss: hinge
  nll_coef: 0.1
""",
    "evaluate": f"""\
stage: evaluate
{_HEAD}models:
  before: you/base
  after: you/tuned
reward: you/reward
reference: before
suites:
  documents:
{_source("held.jsonl", "documents")}  tasks:
    items:
{_source("held.jsonl", "prompts")}  pairs:
{_source("held.jsonl", "pairs")}  prompts:
{_source("held.jsonl", "prompts")}  prompt_rows: 32
  samples_per_prompt: 2
  best_of: 4
  shots:
    - 0
    - 3
  few_shot:
    - before
  examples:
{_source("train.jsonl", "prompts")}{_SAMPLING}rows_per_device: 32
""",
    "selfinstruct": f"""\
stage: selfinstruct
{_HEAD}model:
  base: you/base
  revision: main
seed_tasks:
{_source("train.jsonl", "self_instruct")}selfinstruct:
  instructions: 20
  rounds: 5
  prompts_per_round: 4
  seed_examples: 3
  generated_examples: 1
  instances: 2
  demonstrations: 3
  max_rouge_l: 0.6
  min_words: 3
  max_words: 40
  keywords:
    - picture
  style: chat
{_SAMPLING}""",
    "perplexity": f"""\
stage: perplexity
{_HEAD}model:
  base: you/base
  revision: main
sources:
  - path: train.jsonl
    format: documents
kind: document
block_length: 64
rows_per_device: 8
""",
    "pipeline": f"""\
stage: pipeline
{_HEAD}stages:
  base:
    use: base.yaml
  sft:
    use: sft.yaml
    set:
      model.base: "@base"
      train.epochs: 1
""",
}
FREE_NAMES = ("tasks", "models", "stages", "set")  # mappings whose keys the user makes up


def write_complete(folder: Path) -> dict[str, Path]:
    """All complete recipes in a folder, with the files they name."""
    for name in (
        "train.jsonl",
        "held.jsonl",
        "base.yaml",
        "sft.yaml",
        "runs/scores.jsonl",
        "runs/reward/one/model/config.json",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    for stage, text in COMPLETE.items():
        (folder / f"{stage}-complete.yaml").write_text(text)
    return {stage: Path(f"{stage}-complete.yaml") for stage in COMPLETE}
