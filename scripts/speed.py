"""How fast aligner is beside what it is built on: each pair of figures is taken in turns, in one process.

Ratios are told, not seconds: machines differ, and a shared one differs from itself within minutes.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PrinterCallback,
)
from trl import SFTConfig, SFTTrainer

from aligner.data.tokens import TokenRow
from aligner.models.attention import choose_attention
from aligner.models.fast import hasten
from aligner.models.padding import left_padded
from aligner.models.sample import sample_responses
from aligner.models.tokenizer import train_tokenizer
from aligner.recipe.stages import SftRecipe
from aligner.run.folder import RunFolder
from aligner.stages.batches import labelled
from aligner.stages.sft import answer_trainer
from aligner.stages.stage import training_arguments
from scripts.memory_rows import memory_lines
from scripts.speed_neardups import against_datatrove, quality
from scripts.speed_rows import against_bare, against_trl

ROUNDS = 5
VOCAB = 8192
STEPS, ROWS, PROMPT_TOKENS, ANSWER_TOKENS = 4, 32, 88, 8
PROMPTS, NEW_TOKENS, END_CHANCE = 64, 64, 1 / 32

Task = Callable[[], float]  # does the work once and says how many seconds it took


def main() -> None:
    """Run the benches that are named, or all of them, and print one table."""
    wanted = sys.argv[1:] or list(BENCHES)
    table = Table("", "against", "times as fast", f"lowest to highest of {ROUNDS}", box=None)
    for name in wanted:
        against, ours, theirs = BENCHES[name]()
        ratios = sorted(times_as_fast(ours, theirs))
        table.add_row(
            name, against, f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        )
    Console().print(table)
    if "rows" in wanted:
        for line in memory_lines():
            Console().print(line)
    if {"neardups", "minhash"} & set(wanted):
        Console().print(quality())


def times_as_fast(ours: Task, theirs: Task) -> list[float]:
    """Their seconds over ours, round by round, after one round to warm up; who begins changes every round."""
    ours(), theirs()
    ratios = []
    for number in range(ROUNDS):
        if number % 2:
            other, own = theirs(), ours()
        else:
            own, other = ours(), theirs()
        ratios.append(other / own)
    return ratios


def small_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama of about 2 M parameters, most of them its vocabulary, as small real models are."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=344,
        max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def some_tokenizer() -> PreTrainedTokenizerBase:
    """Any tokenizer with pad and end tokens; the rows are random ids."""
    return train_tokenizer(["what a bench reads"] * 4, vocab_size=300)


def sft() -> tuple[str, Task, Task]:
    """SFT steps where answers are short beside their prompts: ours, and TRL's own loss on the same batches."""
    tokenizer, chooser = some_tokenizer(), random.Random(0)
    supervised = [False] * PROMPT_TOKENS + [True] * ANSWER_TOKENS
    ids = [[chooser.randrange(10, VOCAB) for _ in supervised] for _ in range(STEPS * ROWS)]
    rows = [TokenRow(row, supervised) for row in ids]

    def trainer(kind: str, folder: str) -> SFTTrainer:
        recipe = SftRecipe.model_validate(
            {
                "stage": "sft", "output": f"{folder}/run", "model": {"base": "none"},
                "data": {"train": [{"path": "none"}]},
                "train": {"steps": STEPS, "rows_per_step": ROWS, "learning_rate": 1e-3, "precision": "fp32"},
            }
        )  # fmt: skip
        with RunFolder.open(recipe, recipe_text="") as run:
            model = small_model(tokenizer)
            if kind == "ours":
                choose_attention(model)
                return answer_trainer(model, tokenizer, rows, recipe.train, run, seed=0)
            args = training_arguments(recipe.train, run, rows=len(rows), seed=0, kind=SFTConfig)
            args.max_length = None
            data = Dataset.from_list([labelled(row) for row in rows])
            return SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer)

    def task(kind: str) -> Task:
        def once() -> float:
            with tempfile.TemporaryDirectory() as folder:
                ready = trainer(kind, folder)
                ready.remove_callback(PrinterCallback)
                began = time.perf_counter()
                ready.train()
                return time.perf_counter() - began

        return once

    return "TRL's SFTTrainer", task("ours"), task("theirs")


def sampling() -> tuple[str, Task, Task]:
    """64 answers of mixed lengths to prompts of mixed lengths: ours, and transformers' generate; seconds a token."""
    tokenizer = some_tokenizer()
    fast, plain = hasten(ending_model(tokenizer)), ending_model(tokenizer)
    choose_attention(fast)
    chooser = random.Random(0)
    prompts = [[chooser.randrange(10, VOCAB) for _ in range(chooser.randint(12, 32))] for _ in range(PROMPTS)]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    inputs, mask = left_padded(prompts, pad_id=pad, device=torch.device("cpu"))
    how = GenerationConfig(
        do_sample=True, top_k=0, max_new_tokens=NEW_TOKENS, pad_token_id=pad, eos_token_id=end
    )

    def ours() -> float:
        began = time.perf_counter()
        drawn = sample_responses(
            fast, prompts, max_new_tokens=NEW_TOKENS, temperature=1.0, eos_id=end, pad_id=pad
        )
        return (time.perf_counter() - began) / int(drawn.mask_BR.sum())

    def theirs() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            drawn = plain.generate(inputs, attention_mask=mask.long(), generation_config=how)
        seconds = time.perf_counter() - began
        ended = (drawn[:, inputs.shape[1] :] == end).cumsum(dim=1)
        return seconds / int((ended - (drawn[:, inputs.shape[1] :] == end).long() == 0).sum())

    return "transformers' generate", ours, theirs


def ending_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """The small model with an output layer of its own whose bias ends an answer by chance at every token."""
    model = small_model(tokenizer).eval()
    model.lm_head = torch.nn.Linear(model.config.hidden_size, VOCAB)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.get_input_embeddings().weight)
        model.lm_head.bias.zero_()
        model.lm_head.bias[tokenizer.eos_token_id] = math.log(END_CHANCE * VOCAB)
    return model


BENCHES: dict[str, Callable[[], tuple[str, Task, Task]]] = {
    "sft": sft,
    "sampling": sampling,
    "rows": lambda: against_trl(small_model),
    "tokens": against_bare,
    "neardups": lambda: against_datatrove("spacy"),
    "minhash": lambda: against_datatrove("spaces"),
}

if __name__ == "__main__":
    main()
