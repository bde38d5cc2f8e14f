"""Mojibake repair: text that was decoded with the wrong encoding, such as "schÃ¶n"."""

from __future__ import annotations

from collections.abc import Callable

from aligner.errors import DataError, Problem


def repairer() -> Callable[[str], str]:
    """A function that repairs the encoding of each line of a text and changes nothing else.

    The library is ftfy (Speer 2019, doi:10.5281/zenodo.2591652). Of its repairs only that of encodings is used:
    quotation marks, HTML entities, widths and line ends stay as they were written. Raises `DataError` where it is
    not there.
    """
    try:
        import ftfy  # an extra: few recipes repair texts
    except ImportError as error:
        what = "repair needs the package ftfy"
        raise DataError(Problem("data.clean.repair", what, "pip install 'aligner[data]'")) from error
    # By lines, since a file may hold lines of several origins, and one good line must not shield a bad one.
    return lambda text: "\n".join(ftfy.fix_encoding(line) for line in text.split("\n"))
