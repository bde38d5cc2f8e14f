"""Pretraining: documents to a tokenizer and a small base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from aligner.data.build import Documents, build_documents
from aligner.data.packing import Block, pack_documents
from aligner.data.rows import Document
from aligner.errors import DataError, Problem
from aligner.evals.perplexity import bits_per_byte
from aligner.models.load import LoadedModel, save_model
from aligner.models.small import build_small
from aligner.models.tokenizer import train_tokenizer
from aligner.models.wrapped import output_head
from aligner.recipe.stages import PretrainRecipe
from aligner.run.folder import RunFolder
from aligner.run.progress import say
from aligner.run.seed import seed_everything
from aligner.stages.batches import Batch, BlockCollator, BlockSet
from aligner.stages.loop import StageTrainer, plan_of, run_training
from aligner.stages.losses import IGNORED, next_token_nats
from aligner.stages.optimizer import optimizer_choice
from aligner.stages.order import Curriculum
from aligner.stages.stage import StageResult, new_model, optimiser_steps, training_arguments

BEGINNING_TOKENS = 12  # of a block, by which to look it up in the documents
BETA2 = 0.95  # Adam's memory of gradient sizes: shorter than its default, as language models are pretrained


@dataclass(frozen=True)
class PackedBlocks:
    """Blocks to train on, always and early alone."""

    train: list[Block]
    curriculum: list[Block]


class BlockTrainer(StageTrainer):
    """Next-token cross-entropy, mean over every predicted token of the step."""

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Nats, summed over the predicted tokens."""
        return next_token_nats(model, output_head(model), batch)

    def count(self, batch: Batch) -> Tensor:
        """Predicted tokens."""
        return (batch["targets"] != IGNORED).sum()


def train_pretrain(recipe: PretrainRecipe, run: RunFolder) -> StageResult:
    """Documents -> tokenizer -> packed blocks -> a model trained from scratch, saved with its tokenizer."""
    documents = build_documents(recipe.data, seed=recipe.seed)
    run.start(parents={}, data=documents.report.to_json(), seed=recipe.seed)
    tokenizer = train_tokenizer(tokenizer_texts(documents.train), vocab_size=recipe.tokenizer.vocab_size)
    blocks = pack_blocks(documents, tokenizer, recipe)
    curriculum = curriculum_of(recipe, blocks)
    slots = training_slots(recipe, blocks)
    placed = curriculum.rows_placed(slots) if curriculum else 0
    if curriculum and placed < curriculum.rows:
        room = "the training is too short for more"
        say(f"curriculum: {placed} of {curriculum.rows} blocks are read, {room}")
    seed_everything(recipe.seed)
    model = build_small(recipe.model, tokenizer)

    def holdout() -> dict[str, float]:
        return _holdout(model, tokenizer, documents, recipe)

    trainer = block_trainer(model, tokenizer, blocks, recipe, run)
    trainer.row_name = partial(block_name, blocks, tokenizer)
    run_training(trainer, run, title="pretrain", look=holdout, every=recipe.train.evaluate_every)
    if not run.leads:
        return StageResult(None, {})
    found = holdout()
    if found:
        run.metrics.log(trainer.state.global_step, found)
    with new_model(run) as folder:
        save_model(LoadedModel(model, tokenizer, identity=""), folder, base_folder=run.base_dir)
    results = {f"pretrain/{name.replace('/', '_')}": value for name, value in found.items()}
    counts = {
        "pretrain/tokens": slots * recipe.data.block_length,
        "pretrain/parameters": model.num_parameters(),
    }
    if curriculum:
        counts["pretrain/curriculum_blocks"] = placed
        counts["pretrain/curriculum_left_out_blocks"] = curriculum.rows - placed
    return StageResult(run.model_dir, results | {name: float(count) for name, count in counts.items()})


def pack_blocks(
    documents: Documents, tokenizer: PreTrainedTokenizerBase, recipe: PretrainRecipe
) -> PackedBlocks:
    """The documents as blocks, none of which holds both sorts; DataError where a sort does not fill one."""
    length, isolate = recipe.data.block_length, recipe.data.isolate_documents
    train = pack_documents(documents.train, tokenizer, block_length=length, isolate=isolate)
    early = pack_documents(documents.curriculum, tokenizer, block_length=length, isolate=isolate)
    fault, remedy = f"the documents do not fill one block of {length} tokens", "give more text, or a smaller"
    if not train:
        raise DataError(Problem("data.train", fault, f"{remedy} data.block_length"))
    if recipe.data.curriculum and not early:
        raise DataError(Problem("data.curriculum", fault, f"{remedy} data.block_length"))
    return PackedBlocks(train, early)


def block_name(blocks: PackedBlocks, tokenizer: PreTrainedTokenizerBase, number: int) -> str:
    """A block's number, from 1, and the beginning of its text: blocks hold parts of many documents."""
    ids = [*blocks.train, *blocks.curriculum][number].input_ids[:BEGINNING_TOKENS]
    return f"block {number + 1} ({tokenizer.decode(ids, skip_special_tokens=True)!r}...)"


def curriculum_of(recipe: PretrainRecipe, blocks: PackedBlocks) -> Curriculum | None:
    """When the curriculum's blocks come, if the recipe has one."""
    early = recipe.data.curriculum
    return Curriculum(len(blocks.curriculum), early.until) if early else None


def training_slots(recipe: PretrainRecipe, blocks: PackedBlocks) -> int:
    """How many blocks the training reads, repeats included."""
    return optimiser_steps(recipe.train, rows=len(blocks.train)) * recipe.train.rows_per_step


def block_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: PackedBlocks,
    recipe: PretrainRecipe,
    run: RunFolder,
) -> BlockTrainer:
    """The trainer for these blocks, ready to run."""
    rows = BlockSet([*blocks.train, *blocks.curriculum])
    ordinary = len(blocks.train)
    trainer = BlockTrainer(
        model=model,
        args=training_arguments(
            recipe.train, run, rows=ordinary, seed=recipe.seed, kind=TrainingArguments, beta2=BETA2
        ),
        data_collator=BlockCollator(rows, isolate=recipe.data.isolate_documents),
        train_dataset=rows,
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=optimizer_choice(recipe.train, beta2=BETA2),
    )
    trainer.plan = plan_of(
        recipe.train, rows=ordinary, seed=recipe.seed, curriculum=curriculum_of(recipe, blocks)
    )
    return trainer


def tokenizer_texts(documents: Sequence[Document]) -> Iterator[str]:
    """What the tokenizer learns its words from; of dialogues what the turns say, for the template is control tokens."""
    for document in documents:
        if document.turns:
            yield from (f" {turn.content}" for turn in document.turns)
        else:
            yield document.text


def _holdout(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Documents, recipe: PretrainRecipe
) -> dict[str, float]:
    """Bits per byte of the held-out documents, in float32; nothing where none are held out."""
    if not documents.holdout:
        return {}
    model.eval()
    per_pass = recipe.train.rows_per_device or recipe.train.rows_per_step
    measured = bits_per_byte(
        model, tokenizer, documents.holdout, block_length=recipe.data.block_length, batch_size=per_pass
    )
    return {"holdout/bits_per_byte": measured.bits}
