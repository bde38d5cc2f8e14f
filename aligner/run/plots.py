"""Curves of a run: which numbers share a picture; SVG for the report, PNG for everything else."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aligner.run.lines import JsonRow
from aligner.run.metrics import as_of_ppo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Blue, orange, green, purple: told apart in light and dark, and by the line style where colours are not.
_COLOURS = ("#2f7de1", "#e07b00", "#159a72", "#a855f7")
_STYLES = ("-", "--", "-.", ":")
_INK = "#010203"  # stands for "the text's own colour"; the SVG gets currentColor, the PNG a near-black
_SMOOTH_FROM = 80  # points; below this every point can be read as it is


@dataclass(frozen=True)
class Curve:
    """One line: what the legend calls it, and its points."""

    label: str
    steps: list[float]
    values: list[float]


@dataclass(frozen=True)
class Plot:
    """One picture: `name` for its file, `unit` for the vertical axis."""

    name: str
    title: str
    unit: str
    curves: list[Curve]


@dataclass(frozen=True)
class _Template:
    name: str
    title: str
    unit: str
    keys: dict[str, str]


_TEMPLATES: Final = (
    _Template("loss", "Loss", "nats per token", {"train/loss_nats": "training", "holdout/loss_nats": "held out"}),
    _Template("bits_per_byte", "Held-out bits per byte", "bits per byte", {"holdout/bits_per_byte": "held out"}),
    _Template(
        "accuracy", "Preference accuracy", "share of pairs",
        {
            **{f"{area}/accuracy_share": "training" for area in ("reward", "dpo", "kto")},
            "holdout/accuracy_share": "held out",
        },
    ),
    _Template("reward_loss", "Preference loss", "nats per pair", {"reward/loss_nats": "training"}),
    _Template("dpo_loss", "Preference loss", "per pair", {"dpo/loss": "training"}),
    _Template("kto_loss", "Preference loss", "per answer", {"kto/loss": "training"}),
    _Template(
        "margin", "Implicit reward: chosen less rejected answers", "reward",
        {
            "dpo/margin_mean": "training", "kto/margin_mean": "training", "holdout/margin_mean": "held out",
            "dpo/chosen_reward_mean": "chosen answers", "kto/chosen_reward_mean": "chosen answers",
        },
    ),
    _Template(
        "reward", "Reward on training prompts: learned beside true", "reward",
        {"ppo/proxy_reward": "proxy (learned)", "ppo/gold_reward": "gold (true)"},
    ),
    _Template(
        "holdout_reward", "Reward on held-out prompts: learned beside true", "reward",
        {"ppo/holdout_proxy_reward": "proxy (learned)", "ppo/holdout_gold_reward": "gold (true)"},
    ),
    _Template(
        "kl", "KL to the reference", "nats per response",
        {"kl/ref_nats_per_response": "training", "kl/holdout_ref_nats_per_response": "held out"},
    ),
    _Template(
        "length", "Response length", "tokens",
        {"ppo/response_tokens": "training", "ppo/holdout_response_tokens": "held out"},
    ),
    _Template(
        "responses", "Responses to training prompts", "share",
        {"ppo/finished_share": "finished", "ppo/distinct_share": "distinct", "ppo/repetition_share": "repetition"},
    ),
    _Template(
        "holdout_responses", "Responses to held-out prompts", "share",
        {
            "ppo/holdout_finished_share": "finished", "ppo/holdout_distinct_share": "distinct",
            "ppo/holdout_repetition_share": "repetition",
        },
    ),
    _Template(
        "ppo_health", "Health of the updates", "share",
        {"ppo/clip_share": "clipped tokens", "ppo/explained_variance": "explained variance"},
    ),
)  # fmt: skip


def plots_of(rows: Sequence[JsonRow]) -> list[Plot]:
    """The pictures that these lines of metrics.jsonl have numbers for."""
    rows = [as_of_ppo(row) for row in rows]
    plots = []
    for template in _TEMPLATES:
        curves = [curve for key, label in template.keys.items() if (curve := _curve(rows, key, label)).steps]
        if any(len(curve.steps) > 1 for curve in curves):
            plots.append(Plot(template.name, template.title, template.unit, curves))
    return plots


def draw_svg(plot: Plot) -> str:
    """The picture as an <svg> element for a page: transparent, its ink the page's own text colour."""
    import matplotlib

    buffer = io.StringIO()
    # hashsalt and no date: the same run gives the same bytes
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
        _figure(plot).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # the page's style sizes it, and several pictures in a page must not repeat matplotlib's group names
    svg = re.sub(r'<g id="[a-z]+[\w.-]*_\d+">', "<g>", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def draw_png(plot: Plot) -> bytes:
    """The picture as PNG on white."""
    buffer = io.BytesIO()
    _figure(plot).savefig(buffer, format="png", dpi=144, facecolor="white")
    return buffer.getvalue()


def _curve(rows: Sequence[JsonRow], key: str, label: str) -> Curve:
    points = [(row["step"], row[key]) for row in rows if key in row]
    return Curve(label, [float(step) for step, _ in points], [float(value) for _, value in points])


def _figure(plot: Plot) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.4, 3.1))  # no pyplot: no global state, no display
    figure.subplots_adjust(left=0.14, right=0.98, top=0.9, bottom=0.16)  # constrained layout draws all twice
    axes = figure.add_subplot()
    for index, curve in enumerate(plot.curves):
        colour, style = _COLOURS[index % 4], _STYLES[index % 4]
        few = len(curve.steps) <= 20
        if len(curve.steps) >= _SMOOTH_FROM:
            axes.plot(curve.steps, curve.values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(
            curve.steps, _smoothed(curve.values), style, color=colour, linewidth=1.8, label=curve.label,
            marker="o" if few else "", markersize=3.5,
        )  # fmt: skip
    axes.set_title(plot.title, color=_INK, fontsize=10.5, loc="left", fontweight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step", color=_INK, fontsize=9)
    axes.set_ylabel(plot.unit, color=_INK, fontsize=9)
    axes.tick_params(colors=_INK, labelsize=8.5)
    axes.grid(color="#8884", linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor("#888888")
    if len(plot.curves) > 1:
        axes.legend(labelcolor=_INK, fontsize=8.5, frameon=False)
    return figure


def _smoothed(values: list[float]) -> list[float]:
    """A centred mean over 1/20 of the points; short curves as they are."""
    if len(values) < _SMOOTH_FROM:
        return values
    half = max(1, len(values) // 40)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
