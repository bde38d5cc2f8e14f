"""Which language a text is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aligner.errors import DataError, Problem, nearest


def language_judge(languages: Sequence[str]) -> Callable[[str], bool]:
    """A function that says whether a text is in another language than these (ISO 639-1 codes).

    The library is py3langid (Lui and Baldwin 2012, langid.py), which picks one of some hundred languages; texts of a
    few words are often taken for a wrong one. Raises `DataError` where it is not there or does not know a code.
    """
    try:
        import py3langid  # an extra: few recipes ask for languages
    except ImportError as error:
        what = "a filter of languages needs the package py3langid"
        raise DataError(Problem("data.clean.languages", what, "pip install 'aligner[data]'")) from error
    # The library has one identifier for a whole program, loaded once in a second; a list of languages given to it would
    # hold for all. So it always has all of them to choose from.
    known = sorted(code for code, _ in py3langid.rank(""))
    unknown = [
        Problem("data.clean.languages", f'no language "{code}" is known', nearest(code, known))
        for code in languages
        if code not in known
    ]
    if unknown:
        raise DataError(unknown)
    wanted = frozenset(languages)
    return lambda text: py3langid.classify(text)[0] not in wanted
