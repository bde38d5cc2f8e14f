"""Rewards from a server: prompts and responses as JSON out, one float a response back."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from aligner.errors import Problem, RecipeError
from aligner.rl.answered import Answered

FIRST_PAUSE_SECONDS = 0.5  # before the second try; doubled before each further one
_BUSY = 429
_BROKEN = 500  # and above: it may be well again soon


@dataclass(frozen=True)
class HttpReward:
    """A server's numbers, as they are."""

    url: str
    timeout_seconds: float
    retries: int

    def __call__(self, answered: Answered) -> Tensor:
        """(B,). RecipeError where no try is answered, or not by one finite number a response."""
        prompts = [
            [{"role": turn.role, "content": turn.content} for turn in row.turns] for row in answered.rows
        ]
        asked = {"prompts": prompts, "responses": answered.texts, "finished": answered.finished}
        said = self._post(json.dumps(asked).encode())
        try:
            values = json.loads(said)
        except ValueError:
            values = None
        if not isinstance(values, list):
            fault = f"{self.url} gave no list: {_beginning(said)}"
            raise RecipeError(
                Problem("reward.http", fault, "answer with a JSON list, one float per response")
            )
        if odd := [value for value in values if type(value) not in (int, float)]:
            fault = f"{self.url} gave {odd[0]!r}, which is no number"
            raise RecipeError(Problem("reward.http", fault, "answer with one float per response"))
        return answered.numbers(values, self.url)

    def _post(self, body: bytes) -> bytes:
        fault = ""
        for trial in range(self.retries + 1):
            if trial:
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (trial - 1))
            request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                fault = f"answered {error.code} {error.reason}: {_complaint(error)}"
                if error.code != _BUSY and error.code < _BROKEN:
                    break
            except (OSError, http.client.HTTPException) as error:
                fault = f"did not answer: {getattr(error, 'reason', None) or error or type(error).__name__}"
        tries = f"{trial + 1} {'try' if trial == 0 else 'tries'} of {self.timeout_seconds:g} s at most"
        raise RecipeError(
            Problem(
                "reward.http",
                f"{self.url} {fault} ({tries})",
                "start the server, mend its url, or raise timeout_seconds or retries",
            )
        )


def _complaint(error: urllib.error.HTTPError) -> str:
    with suppress(OSError, http.client.HTTPException):
        return _beginning(error.read())
    return "and broke off"


def _beginning(said: bytes) -> str:
    text = said.decode("utf-8", errors="replace").strip()
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
