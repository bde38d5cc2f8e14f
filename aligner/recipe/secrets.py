"""Access tokens have no place in a recipe: it is kept in every run folder, shown and shared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from aligner.errors import Problem

# As their makers write them: Hugging Face, OpenAI and kin, GitHub, GitLab, AWS, Slack; and keys in PEM.
_TOKEN = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|sk-(proj-|ant-)?\w{32,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{30,}|glpat-[\w-]{20,}|AKIA[A-Z0-9]{16}|xox[abp]-[\w-]{20,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_REMEDY = "take it out; tokens are read from HF_TOKEN, or kept by `hf auth login`"


def find_secrets(text: str, file: str, overrides: Sequence[str]) -> Iterator[Problem]:
    """What looks like an access token in a recipe, comments too, or in its overrides; it is not told itself."""
    for number, line in enumerate(text.splitlines(), start=1):
        if _holds_token(line):
            yield Problem(f"{file}:{number}", "an access token stands here", _REMEDY)
    for override in overrides:
        if _holds_token(override):
            key = override.partition("=")[0]
            where = "-s" if _holds_token(key) else f"-s {key}"
            yield Problem(where, "an access token stands here", _REMEDY)


def _holds_token(text: str) -> bool:
    ours = [os.environ.get(name, "") for name in _VARIABLES]
    return bool(_TOKEN.search(text)) or any(len(token) >= 8 and token in text for token in ours)
