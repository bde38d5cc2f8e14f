"""The command line: reads what was asked, calls the pipeline, prints the answer. Heavy imports wait.

Exit codes: 0 done, 2 a mistake the user can mend (one message, no traceback), 3 a disk that is full or broken, 4 a
training that stopped itself, 1 our own fault, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import aligner
from aligner.cli.printing import print_health, print_outcome, print_plan
from aligner.cli.starter import copy_starter
from aligner.errors import AlignerError, Interrupted, Problem
from aligner.run import launch

STAGES = {
    "pretrain": "Train a small base model and its tokenizer on documents.",
    "sft": "Tune a model on conversations; the loss is on the answers only.",
    "reward": "Train a reward model on pairs of answers.",
    "ppo": "Train a policy against a reward, held near its start model.",
    "dpo": "Train a policy on pairs of answers, without a reward model.",
    "kto": "Train a policy on answers that are good or bad, each by itself.",
    "grpo": "Train a policy on rewards relative to its other answers to the same prompt.",
    "rloo": "Train a policy by REINFORCE, its other answers to a prompt being the baseline.",
    "rejection": "Tune a model on the best of its own answers, again and again.",
    "evaluate": "Ask several models the same questions, side by side.",
    "selfinstruct": "Write new instructions with a model, after seed tasks.",
    "perplexity": "Measure how hard rows are for a model: bits per byte, for data.clean.perplexity.",
}

app = typer.Typer(
    name="aligner",
    help="Raw text to an aligned model: pretraining, instruction tuning, reward model, PPO; one recipe a stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe file (.yaml)")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        metavar="KEY=VALUE",
        help="change a value: -s train.epochs=2, in a pipeline -s sft.train.epochs=2; may be given often",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="throw away what is in the run folder and begin again")]


def main() -> None:
    """The `aligner` command."""
    app()


def _stage_command(stage: str) -> Callable[..., None]:
    def command(recipe: RecipeFile, overrides: Overrides = None, fresh: Fresh = False) -> None:
        _run(recipe, overrides, stage=stage, fresh=fresh)

    return command


for _stage, _help in STAGES.items():
    app.command(_stage, help=_help)(_stage_command(_stage))


@app.command()
def run(recipe: RecipeFile, overrides: Overrides = None, fresh: Fresh = False) -> None:
    """Run a pipeline (or any single stage): finished stages are skipped, interrupted ones go on."""
    _run(recipe, overrides, stage=None, fresh=fresh)


@app.command()
def check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check a recipe and its data and show the plan: steps, tokens, memory, time, precision. Trains nothing."""
    with _answering():
        _tell_mistakes_first(recipe, overrides)
        from aligner.check import check_recipe

        print_plan(check_recipe(recipe, overrides or []))


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="where runs would be written")] = Path(),
) -> None:
    """What this machine offers and what will be used, and why: versions, processor, GPUs, memory, disk, cache."""
    with _answering():
        from aligner.doctor import examine

        if not print_health(examine(folder)):
            raise typer.Exit(2)


@app.command()
def show(
    recipe: RecipeFile,
    overrides: Overrides = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="how many rows")] = 5,
    stage: Annotated[str | None, typer.Option("--stage", help="of a pipeline, this stage alone")] = None,
    dropped: Annotated[
        bool,
        typer.Option(
            "--dropped",
            help="rows that were dropped, by reason: ten of each at most, all that cannot be read",
        ),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="a page of all this, dropped rows too")
    ] = None,
) -> None:
    """Show rows as the model will see them, the tokens it learns from in colour; or those that are left out."""
    with _answering():
        if html and dropped:
            what = "the page has the dropped rows, too"
            raise AlignerError(Problem("--dropped", what, "leave out --dropped, or --html"))
        _tell_mistakes_first(recipe, overrides)
        from aligner.preview import show_dropped_rows, show_recipe, write_page

        if html:
            write_page(html, recipe, overrides or [], count, stage)
            typer.echo(f"page: {html}")
        else:
            look = show_dropped_rows if dropped else show_recipe
            look(recipe, overrides or [], count, stage)


@app.command()
def report(folder: RunArgument) -> None:
    """Write report.html of a finished or running stage or pipeline."""
    with _answering():
        from aligner.run.report import build_report

        typer.echo(f"report: {build_report(folder)}")


@app.command()
def schema(
    stage: Annotated[
        str | None,
        typer.Argument(metavar="[STAGE|task]", help="one stage, or task files; all stages when left out"),
    ] = None,
) -> None:
    """Print the JSON schema of recipes or of task files, for editors."""
    with _answering():
        from aligner.recipe.load import json_schema

        typer.echo(json.dumps(json_schema(stage), indent=2))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="where to put them")] = Path(),
) -> None:
    """Copy the starter recipes and their data into a folder. Files that are there already stay as they are."""
    with _answering():
        copied, kept = copy_starter(folder)
        if kept:
            typer.echo(f"{kept} files there already, left as they are")
        typer.echo(
            f"{copied} files written to {folder}" if copied else f"nothing to write: {folder} has them all"
        )
        quickstart = folder / "recipes" / "quickstart.yaml"
        if quickstart.exists():
            place = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
            typer.echo(f"next: {place}aligner run recipes/quickstart.yaml")


@app.command()
def publish(
    folder: RunArgument,
    repo: Annotated[str, typer.Option("--repo", metavar="YOU/NAME", help="the repository on the Hub")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="write the exact folder instead of uploading it")
    ] = False,
    to: Annotated[Path | None, typer.Argument(metavar="[FOLDER]", help="where a dry run writes")] = None,
    public: Annotated[bool, typer.Option("--public", help="let everybody see it; private otherwise")] = False,
) -> None:
    """Upload a run's model with its card to the Hugging Face Hub."""
    with _answering():
        if to and not dry_run:
            raise AlignerError(
                Problem(str(to), "only a dry run writes a folder", "add --dry-run, or leave it out")
            )
        from aligner.hub.upload import publish as upload

        target = (to or Path(f"{folder}-publish")) if dry_run else None
        published = upload(folder, repo, private=not public, dry_run_folder=target)
        for name in published.files:
            typer.echo(f"  {name}")
        typer.echo(f"published: {published.url}" if published.url else f"written, not uploaded: {target}")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aligner {aligner.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what goes wrong in a command into a message and an exit code."""
    try:
        yield
    except AlignerError as error:
        _tell(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
    except typer.Exit:
        raise
    except BrokenPipeError:  # whoever read the answer has left (| head), and would leave once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None
    except Exception as error:
        traceback.print_exc()
        typer.echo(
            f"aligner {aligner.__version__} failed, and it is not your fault: {type(error).__name__}: {error}",
            err=True,
        )
        raise typer.Exit(1) from None


def _tell(error: AlignerError) -> None:
    """The message; from a process beside the first, which as a rule says the same, a line."""
    if launch.rank() == 0:
        typer.echo(str(error), err=True)
    elif not isinstance(error, Interrupted):
        problem = error.problems[0]
        typer.echo(f"process {launch.rank()}: {problem.where}: {problem.what}", err=True)


def _tell_mistakes_first(recipe: Path, overrides: list[str] | None) -> None:
    """Refuse a wrong recipe before torch is imported, which takes seconds."""
    from aligner.recipe.load import load_recipe

    load_recipe(recipe, overrides or [])


def _run(recipe: Path, overrides: list[str] | None, *, stage: str | None, fresh: bool) -> None:
    with _answering():
        from aligner.pipeline import follow, part, run_recipe

        if launch.rank() > 0:
            follow()
        else:
            print_outcome(run_recipe(recipe, overrides or [], stage=stage, fresh=fresh))
        part()
