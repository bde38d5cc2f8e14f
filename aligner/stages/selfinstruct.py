"""Self-instruct: a model writes new instructions and solved instances after seed tasks, round by round.

Wang et al. 2022 (arXiv:2212.10560): lists of six seed and two new instructions are gone on with; what is new on them is
told to be a classification or not; instances follow, output first for classifications. A round depends on the seed, its
number and the tasks before it, so that an interrupted run goes on to the very same tasks.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from aligner.data.bootstrap.filters import Novelty, instance_reasons, reason_against_instruction
from aligner.data.bootstrap.pages import (
    Listed,
    instance_page,
    kind_page,
    read_instance,
    read_tasks,
    tasks_page,
)
from aligner.data.bootstrap.pool import Account, Pool
from aligner.data.bootstrap.tasks import Instance, InstructionTask, build_seed_tasks
from aligner.errors import Interrupted, ModelError, Problem, TrainingError
from aligner.models.load import load_trained
from aligner.recipe.stages import SelfInstructRecipe
from aligner.rl.seeds import derived_seed, generator
from aligner.run.checkpoint import load_newest, save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.progress import Bar, progress, say
from aligner.run.write import write_text
from aligner.stages.stage import StageResult
from aligner.stages.stop import gentle_stop
from aligner.stages.writer import Asked, Writer

ROWS_FILE = "instructions.jsonl"
MAIN_REASONS = 3  # that are told of each account where nothing was kept


@dataclass(frozen=True)
class Job:
    """Everything a run works with."""

    recipe: SelfInstructRecipe
    run: RunFolder
    writer: Writer
    seeds: list[InstructionTask]
    pool: Pool


def self_instruct(recipe: SelfInstructRecipe, run: RunFolder) -> StageResult:
    """New tasks, written to `instructions.jsonl` after each round; resumes from the newest checkpoint.

    Raises Interrupted (after the round is saved) at Ctrl-C, ModelError where no seed task fits the model's context,
    TrainingError where the last round ends without any new task; the rounds stay, and more may be asked for.
    """
    loaded = load_trained(recipe.model.base, recipe.model.revision)
    seeds = build_seed_tasks(recipe.seed_tasks, loaded.tokenizer, seed=recipe.seed)
    run.start(parents={"base": loaded.identity}, data=seeds.report.to_json(), seed=recipe.seed)
    done, pool = _resumed(run)
    job = Job(recipe, run, Writer(recipe, loaded), seeds.tasks, pool)
    wanted = recipe.selfinstruct.instructions
    with progress("selfinstruct", wanted, done=min(len(pool.tasks), wanted)) as bar:
        _play(job, done, bar)
    if not pool.tasks:
        raise TrainingError(_nothing(job))
    if len(pool.tasks) < wanted:
        say(
            f"{run.path}: {len(pool.tasks)} of {wanted} instructions after all {recipe.selfinstruct.rounds} rounds"
        )
    _write_rows(job)
    return StageResult(None, _results(pool))


def _nothing(job: Job) -> Problem:
    """Why there is no new task: what became of all that was written."""
    spec, pool = job.recipe.selfinstruct, job.pool
    told = [f"instructions: {_account(pool.instructions)}", f"instances: {_account(pool.instances)}"]
    what = f"not one new task in {spec.rounds} rounds; {'; '.join(told)}"
    remedy = (
        "see what the reasons name: more sampling.max_new_tokens where much is cut, another style or model where it is"
        " unreadable, in a new output; a larger selfinstruct.rounds goes on in this one"
    )
    return Problem(str(job.run.path), what, remedy)


def _account(account: Account) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in account.dropped.most_common(MAIN_REASONS))
    return f"{account.read} read" + (f", dropped most: {reasons}" if reasons else "")


def _play(job: Job, done: int, bar: Bar) -> None:
    spec, pool = job.recipe.selfinstruct, job.pool
    with gentle_stop() as stop:
        for number in range(done, spec.rounds):
            if len(pool.tasks) >= spec.instructions:
                return
            before, read = len(pool.tasks), pool.instructions.read
            play_round(job, number)
            new = len(pool.tasks) - before
            kept = new / max(pool.instructions.read - read, 1)
            job.run.metrics.log(
                number + 1, {"selfinstruct/tasks": len(pool.tasks), "selfinstruct/round_kept_share": kept}
            )
            save_checkpoint(job.run.checkpoints, number + 1, {}, pool.to_json())
            _write_rows(job)
            bar.advance(min(len(pool.tasks), spec.instructions) - min(before, spec.instructions), kept=kept)
            if stop.asked and len(pool.tasks) < spec.instructions:
                fault = f"stopped after round {number + 1}; {len(pool.tasks)} tasks are in {ROWS_FILE}"
                raise Interrupted(Problem(str(job.run.path), fault, "the same command goes on from there"))


def play_round(job: Job, number: int) -> None:
    """Write lists, keep what is new on them, solve it."""
    asked = [_list_page(job, number, index) for index in range(job.recipe.selfinstruct.prompts_per_round)]
    written = job.writer.write(asked, generator(job.recipe.seed, "selfinstruct.lists", number))
    listed = [found for text in written for found in read_tasks(text.text, finished=text.finished) or [None]]
    instructions = _new_instructions(job, listed)
    draw = random.Random(derived_seed(job.recipe.seed, "selfinstruct.demonstrations", number))
    kinds = _kinds(job, instructions, draw)
    for task, reason in _solved(job, kinds, draw, number):
        if job.pool.instructions.judge(reason):
            job.pool.tasks.append(task)


def list_examples(
    recipe: SelfInstructRecipe, seeds: Sequence[InstructionTask], made: Sequence[InstructionTask], *place: int
) -> list[str]:
    """Instructions of one list, new ones and seeds in a random order; seeds stand in for new ones.

    `place`: of the list in the run, its round and its number there.
    """
    spec = recipe.selfinstruct
    draw = random.Random(derived_seed(recipe.seed, "selfinstruct.examples", *place))
    new = draw.sample(made, min(spec.generated_examples, len(made)))
    wanted = spec.seed_examples + spec.generated_examples - len(new)
    shown = [*new, *draw.sample(seeds, min(wanted, len(seeds)))]
    draw.shuffle(shown)
    return [task.instruction for task in shown]


def _list_page(job: Job, number: int, index: int) -> Asked:
    asked = job.writer.ask(list_examples(job.recipe, job.seeds, job.pool.tasks, number, index), tasks_page)
    if asked is None:
        what = "not one seed task fits the model's context beside the new tokens"
        remedy = "lower it, give shorter seed tasks, or take a model with a longer context"
        raise ModelError(Problem("sampling.max_new_tokens", what, remedy))
    return asked


def _new_instructions(job: Job, listed: Sequence[Listed | None]) -> list[str]:
    """Those that pass the filters, in order. They are counted as read later, with what becomes of their instances."""
    novelty = Novelty(task.instruction for task in (*job.seeds, *job.pool.tasks))
    kept = []
    for found in listed:
        reason = _reason_against(found, novelty, job.recipe)
        if reason is None and found is not None:
            novelty.add(found.text)
            kept.append(found.text)
        else:
            job.pool.instructions.judge(reason)
    return kept


def _reason_against(found: Listed | None, novelty: Novelty, recipe: SelfInstructRecipe) -> str | None:
    if found is None:
        return "unreadable"
    return found.fault or reason_against_instruction(found.text, novelty, recipe.selfinstruct)


def _kinds(job: Job, instructions: Sequence[str], draw: random.Random) -> list[tuple[str, bool]]:
    """Each instruction and whether the model takes it for a classification.

    Where the seeds are of one kind, so is everything; one too long to be asked about counts as none.
    """
    if len({task.classification for task in job.seeds}) < 2:
        return [(text, job.seeds[0].classification) for text in instructions]
    asked = {}
    for text in instructions:
        shown = [task for kind in (True, False) for task in _drawn(job, kind, draw)]
        draw.shuffle(shown)
        asked[text] = job.writer.ask(shown, partial(kind_page, text))
    fitting = {text: one for text, one in asked.items() if one is not None}
    said = dict(zip(fitting, job.writer.say_yes(list(fitting.values())), strict=True))
    return [(text, said.get(text, False)) for text in instructions]


def _drawn(job: Job, kind: bool, draw: random.Random) -> list[InstructionTask]:
    pool = [task for task in job.seeds if task.classification == kind]
    return draw.sample(pool, min(job.recipe.selfinstruct.demonstrations, len(pool)))


def _solved(
    job: Job, kinds: Sequence[tuple[str, bool]], draw: random.Random, number: int
) -> Iterator[tuple[InstructionTask, str | None]]:
    """Each instruction with those of its instances that are kept, and the reason against it.

    Reasons: `no_room` (not one solved seed task fits the context before it), `no_instance` (none was kept).
    """
    pages = [
        job.writer.ask(_drawn(job, kind, draw), partial(instance_page, text, label_first=kind))
        for text, kind in kinds
    ]
    each = job.recipe.selfinstruct.instances
    asked = [page for page in pages if page for _ in range(each)]
    written = iter(job.writer.write(asked, generator(job.recipe.seed, "selfinstruct.instances", number)))
    for (text, kind), page in zip(kinds, pages, strict=True):
        found = [
            read_instance(given.text, finished=given.finished, label_first=kind)
            for given in islice(written, each if page else 0)
        ]
        task = InstructionTask(text, kind, tuple(_kept(job.pool.instances, text, found)))
        yield task, None if task.instances else "no_instance" if page else "no_room"


def _kept(account: Account, instruction: str, found: Sequence[Instance | str]) -> Iterator[Instance]:
    for reason in (one for one in found if isinstance(one, str)):
        account.judge(reason)
    whole = [one for one in found if isinstance(one, Instance)]
    for one, reason in zip(whole, instance_reasons(instruction, whole), strict=True):
        if account.judge(reason):
            yield one


def _resumed(run: RunFolder) -> tuple[int, Pool]:
    """Rounds already played, and the pool after them."""
    found = load_newest(run.checkpoints)
    run.metrics.cut_back(found.step if found else -1)
    if found is None:
        return 0, Pool()
    say(f"{run.path}: goes on from round {found.step}")
    return found.step, Pool.from_json(found.state)


def _write_rows(job: Job) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in job.pool.rows()]
    write_text(job.run.path / ROWS_FILE, "".join(lines))


def _results(pool: Pool) -> dict[str, float]:
    results: dict[str, float] = {
        "selfinstruct/tasks": len(pool.tasks),
        "selfinstruct/rows": pool.instances.kept,
        "selfinstruct/classifications": sum(task.classification for task in pool.tasks),
        "selfinstruct/instructions_read": pool.instructions.read,
        "selfinstruct/instances_read": pool.instances.read,
    }
    for name, account in (("instructions", pool.instructions), ("instances", pool.instances)):
        dropped = sorted(account.dropped.items())
        results |= {f"selfinstruct/{name}_dropped[{reason}]": count for reason, count in dropped}
    return results
