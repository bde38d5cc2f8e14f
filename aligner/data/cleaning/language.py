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
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # an extra: few recipes ask for languages
    except ImportError as error:
        what = "a filter of languages needs the package py3langid"
        raise DataError(Problem("data.clean.languages", what, "pip install 'aligner[data]'")) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = sorted(set(identifier.labels))
    unknown = [
        Problem("data.clean.languages", f'no language "{code}" is known', nearest(code, known))
        for code in languages
        if code not in known
    ]
    if unknown:
        raise DataError(unknown)
    wanted = frozenset(languages)
    return lambda text: identifier.classify(text)[0] not in wanted
