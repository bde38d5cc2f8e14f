"""Numbers as people read them: in tables, beside a progress bar, in sentences."""

from __future__ import annotations

MISSING = "–"
_NOISE = 5e-5  # what is nearer to 0 is rounding: a KL of a model to itself, say


def number(value: float, name: str = "") -> str:
    """Shares (`name` ends in _share) in percent, whole numbers in groups of three, others to three digits or two."""
    if name.endswith("_share"):
        return f"{100 * value:.1f} %".replace("-0.0 %", "0.0 %")
    if abs(value) < _NOISE:
        return "0"
    if (value == int(value) and abs(value) < 1e15) or 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Seconds as a clock a person reads: "48 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
