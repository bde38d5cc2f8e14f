"""A reward from a server on this machine: what it is told, and what becomes of every way it can fail."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import aligner.rl.remote
from aligner.errors import RecipeError
from aligner.recipe.ppo import HttpSpec, RewardSource
from aligner.rl.finite import Stopped
from aligner.rl.rewards import load_rewards
from tests.rl.test_rewards import episodes
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch):
    monkeypatch.setattr(aligner.rl.remote, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def server(*answers):
    """Gives its answers in turn, each (status, body) or the seconds it says nothing; yields its url and what it was asked."""
    asked, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, float):
                time.sleep(answer)
                answer = (200, "[9, 9]")
            status, body = answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/score", asked
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def scored(url, **changes):
    source = RewardSource(
        http=HttpSpec(url=url, **({"timeout_seconds": 5.0, "retries": 2} | changes)), weight=2.0
    )
    rewards = load_rewards([source], TOKENIZER)
    return rewards(rewards.answered(*episodes(TOKENIZER, ["cat", "a house"], [True, False]))).tolist()


def test_a_server_sees_prompts_responses_and_endings_and_gives_numbers():
    with server((200, "[0.5, -1]")) as (url, asked):
        assert scored(url) == [1.0, -2.0]
    assert asked == [
        {
            "prompts": [[{"role": "user", "content": "?"}]] * 2,
            "responses": ["cat", "a house"],
            "finished": [True, False],
        }
    ]


def test_a_server_that_is_busy_or_broken_is_asked_again():
    with server((503, "starting"), (429, "busy"), (200, "[1, 2]")) as (url, asked):
        assert scored(url) == [2.0, 4.0]
    assert len(asked) == 3 and asked[0] == asked[2]


def test_a_server_that_stays_broken_is_told_with_what_it_said():
    told = "answered 500 .*out of memory.* \\(3 tries of 5 s"
    with server((500, "out of memory")) as (url, asked), pytest.raises(RecipeError, match=told) as caught:
        scored(url)
    assert len(asked) == 3 and url in str(caught.value) and caught.value.exit_code == 2


def test_a_refusal_is_told_at_once():
    with (
        server((404, "no such path")) as (url, asked),
        pytest.raises(RecipeError, match="answered 404 .*\\(1 try"),
    ):
        scored(url)
    assert len(asked) == 1


def test_a_server_that_says_nothing_in_time_is_asked_again_and_then_told():
    with server(1.0, (200, "[1, 2]")) as (url, _):
        assert scored(url, timeout_seconds=0.2) == [2.0, 4.0]
    with server(1.0) as (url, _), pytest.raises(RecipeError, match="did not answer: timed out"):
        scored(url, timeout_seconds=0.1, retries=0)


def test_nobody_there():
    with server((200, "[]")) as (url, _):
        pass
    with pytest.raises(RecipeError, match="did not answer: .*refused"):
        scored(url)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("oops", "gave no list: 'oops'"),
        ('{"rewards": [1, 2]}', "gave no list"),
        ("[1]", "gave 1 numbers for 2 responses"),
        ("[1, NaN]", "nan"),
        ('[1, "2"]', "'2'"),
        ("[1, null]", "None"),
        ("[1, true]", "True"),
    ],
)
def test_an_answer_that_is_no_list_of_floats_is_told(body, word):
    kind = Stopped if word == "nan" else RecipeError
    with server((200, body)) as (url, _), pytest.raises(kind, match=word):
        scored(url)


def test_an_address_is_one():
    with pytest.raises(ValueError, match="is no address"):
        HttpSpec(url="file:///etc/passwd")
