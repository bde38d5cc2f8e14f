"""report.html: one self-contained page on a run folder, or on a pipeline's folder of run folders.

It reads facts only (JSON the stages wrote), so it can be made again years later; the run never knows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aligner.run.facts import StageFacts, places_of_stages, read_stages
from aligner.run.manifest import Manifest
from aligner.run.metrics import METRICS, describe
from aligner.run.numbers import MISSING, duration
from aligner.run.plots import draw_png, draw_svg, plots_of
from aligner.run.report_samples import SideBySide, other_samples, side_by_side
from aligner.run.report_tables import Movement, Part, ResultTable, movements, result_tables, start_and_end
from aligner.run.verdict import verdict
from aligner.run.write import write_bytes, write_text

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "report.html.j2"


def build_report(folder: Path) -> Path:
    """Write `folder/report.html` (and each stage's plots/*.png), give its path; RunError for no run folder."""
    stages = read_stages(folder)
    page = render(
        folder.resolve().name, _status(folder, stages), stages, {s.name: _draw(folder, s) for s in stages}
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def render(title: str, status: str, stages: Sequence[StageFacts], drawings: dict[str, list[Markup]]) -> str:
    """The page. Everything but our own drawings is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    compared = [stage for stage in stages if stage.manifest.stage == "evaluate"]
    tuned = [stage for stage in stages if stage.manifest.stage != "evaluate"]
    return environment.get_template(TEMPLATE).render(
        title=title,
        status=status,
        stages=stages,
        tuned=tuned,
        compared=compared,
        drawings=drawings,
        moved=_movements(tuned),
        verdict=verdict(stages),
        tables=_tables(compared, "first"),
        other_tables=_tables(compared, "rest"),
        family_tables=_tables(compared, "families"),
        own_tables={stage.name: _own_tables(stage) for stage in tuned},
        generations=_generations(compared),
        other_samples={stage.name: other_samples(stage.samples) for stage in tuned},
        glossary=_glossary(stages),
        machines=_machines(stages),
    )


def _draw(folder: Path, stage: StageFacts) -> list[Markup]:
    """Draw a stage's curves: PNG files into its folder, SVG for the page."""
    from markupsafe import Markup

    home = folder if folder.resolve().name == stage.name else folder / stage.name
    drawn = []
    for plot in plots_of(stage.metrics):
        write_bytes(home / "plots" / f"{plot.name}.png", draw_png(plot))
        drawn.append(Markup(draw_svg(plot)))  # matplotlib escapes the text it draws
    return drawn


def _status(folder: Path, stages: Sequence[StageFacts]) -> str:
    done = sum(stage.manifest.status == "finished" for stage in stages)
    planned = max(len(stages), len(places_of_stages(folder)))  # some may not have begun
    total = sum(max(s.manifest.seconds, s.metrics[-1]["seconds"] if s.metrics else 0.0) for s in stages)
    whole = (folder / "manifest.json").exists() and Manifest.read(folder).status
    state = "finished" if done == planned else str(whole or "unfinished")
    count = f"{planned} stages" if planned > 1 else f"{stages[0].manifest.stage} stage"
    return f"{count}, {state if done == planned else f'{done} finished ({state})'}, {duration(total)} in all"


def _movements(stages: Sequence[StageFacts]) -> list[Movement]:
    return [movement for stage in stages for movement in movements(stage.name, stage.metrics)]


def _tables(stages: Sequence[StageFacts], part: Part) -> list[ResultTable]:
    return [table for stage in stages for table in result_tables(stage.results, part)]


def _own_tables(stage: StageFacts) -> list[ResultTable]:
    """A trained stage's results: beside those of its start where it has both, then the others."""
    both, left = start_and_end(stage.results)
    return both + result_tables(left, "suites")


def _generations(stages: Sequence[StageFacts]) -> SideBySide:
    return side_by_side([row for stage in stages for row in stage.samples])


def _glossary(stages: Sequence[StageFacts]) -> list[tuple[str, str]]:
    """Every name that occurs in these runs and has been described, once."""
    logged = dict.fromkeys(key for stage in stages for row in stage.metrics for key in row if key in METRICS)
    told = dict.fromkeys(key.partition("[")[0] for stage in stages for key in stage.results)
    names = {key: describe(key) for key in logged} | {key.rpartition("/")[2]: describe(key) for key in told}
    return [(name, text) for name, text in names.items() if text]


def _machines(stages: Sequence[StageFacts]) -> list[tuple[str, str]]:
    """What the stages ran on and with; the last stage speaks where all agree anyway."""
    manifest = next((stage.manifest for stage in reversed(stages) if stage.manifest.hardware), None)
    if manifest is None or manifest.hardware is None:
        return []
    machine = manifest.hardware
    lines = [
        ("processor", f"{machine.cpu}, {machine.cores} cores, {machine.threads or MISSING} torch threads"),
        ("memory", f"{machine.memory_gib} GiB"),
        ("GPU", ", ".join(machine.gpus) or "none"),
        ("commit", manifest.commit or "installed package"),
    ]
    return [*lines, *manifest.versions.items()]
