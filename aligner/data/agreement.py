"""How far annotators agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from aligner.data.rows import Rated
from aligner.errors import DataError, Problem

Marks = Sequence[float | None]


def agreement_by_criterion(rated: Iterable[Rated]) -> dict[str, float | None]:
    """Krippendorff's alpha of each criterion, ratings taken as an interval scale, since their means are compared.

    1: all agree; 0: as by chance; below: worse. None where it is not defined (see `alpha`). Raises as `alpha` does.
    """
    units: dict[str, list[Marks]] = defaultdict(list)
    for item in rated:
        units[item.criterion].append(item.values)
    return {criterion: alpha(given) for criterion, given in units.items()}


def alpha(units: Sequence[Marks]) -> float | None:
    """Krippendorff's alpha for interval data: 1 - observed over expected squared difference (Krippendorff 2011).

    units: of each thing that was rated, what each annotator said (None: nothing). The order of annotators does not
    matter, nor that it is the same for all. None where no unit has two ratings, or all that have are equal: then no
    disagreement is expected that could be missed. Raises `DataError` where the library is not there.
    """
    shared = [given for unit in units if len(given := [mark for mark in unit if mark is not None]) > 1]
    if len({mark for unit in shared for mark in unit}) < 2:
        return None
    try:
        import krippendorff  # an extra: few recipes have several annotators
    except ImportError as error:
        what = "the agreement of annotators needs the package krippendorff"
        raise DataError(Problem("data", what, "pip install 'aligner[data]'")) from error
    widest = max(map(len, shared))
    nan = float("nan")
    table = [[unit[i] if i < len(unit) else nan for unit in shared] for i in range(widest)]
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="interval"))
