from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.detection import detect_format
from aligner.data.readers.formats import FORMATS_OF
from aligner.data.readers.kinds import Kind
from aligner.data.readers.text import GROUP_CHARS
from aligner.data.rows import Conversation, Document, Pair, Prompt, Turn
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec
from tests.data.chats import chat

GOOD: dict[str, dict] = {
    "documents": {"text": "Some text."},
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
    "alpaca": {"instruction": "Add.", "input": "1 2", "output": "3"},
    "self_instruct": {"instruction": "Add.", "instances": [{"input": "", "output": "3"}]},
    "gsm8k": {"question": "1+1?", "answer": "1+1 = <<1+1=2>>2\n#### 2"},
    "pairs": {"prompt": "Hi", "chosen": "good", "rejected": "bad"},
    "rankings": {"prompt": "Hi", "answers": ["best", "middle", "worst"]},
    "hh": {"chosen": "\n\nHuman: Hi\n\nAssistant: good", "rejected": "\n\nHuman: Hi\n\nAssistant: bad"},
    "sharegpt_pairs": {
        "conversations": [{"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "kto": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
        "label": True,
    },
    "alpaca_rankings": {"instruction": "Add.", "input": "1 2", "output": ["3", "4"], "history": [["a", "b"]]},
    "alpaca_eval": {"instruction": "Hi", "output_1": "bad", "output_2": "good", "preference": 2},
    "oasst": {
        "message_tree_id": "t",
        "prompt": {
            "text": "Hi",
            "role": "prompter",
            "replies": [
                {"text": "bad", "role": "assistant", "rank": 1, "replies": []},
                {"text": "good", "role": "assistant", "rank": 0, "replies": []},
            ],
        },
    },
    "ratings": {
        "prompt": "Hi",
        "answers": [{"text": "bad", "ratings": {"help": 1}}, {"text": "good", "ratings": {"help": 4}}],
    },
    "rules": {
        "prompt": "Hi",
        "answers": [{"text": "bad", "violated": ["rude"]}, {"text": "good", "violated": []}],
    },
    "prompts": {"prompt": "Hi", "family": "f", "gold": {"kind": "unsafe", "answers": []}},
    "dolly": {"instruction": "Add.", "context": "1 2", "response": "3", "category": "sums"},
    "completions": {"prompt": "1+1?", "completion": " 2<|endoftext|>"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
    "moss": {
        "meta_instruction": "Be kind.\n",
        "chat": {
            "turn_1": {
                "Human": "<|Human|>: Hi<eoh>\n",
                "Commands": "<|Commands|>: None<eoc>\n",
                "MOSS": "<|MOSS|>: Ho<eom>\n",
            }
        },
    },
    "natural_instructions": {
        "Definition": ["Add the numbers."],
        "Categories": ["Sums"],
        "Positive Examples": [{"input": "2 2", "output": "4", "explanation": ""}],
        "Instances": [{"id": "1", "input": "1 2", "output": ["3", "three"]}],
    },
    "flan_cot": {"question": "1+1? In words.", "answer": "two", "rationale": "One more than one."},
    "aqua": {"question": "1+1?", "options": ["A)1", "B)2"], "rationale": "One and one.", "correct": "B"},
    "mmlu": {"question": "1+1?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "B"},
    "belle": {"question": "1+1?", "std_answer": "2", "class": "math"},
    "mt_bench": {"question_id": 1, "category": "math", "turns": ["1+1?", "And one more?"]},
}
KIND: dict[str, Kind] = {
    "documents": "document", "messages": "conversation", "alpaca": "conversation", "self_instruct": "conversation",
    "gsm8k": "conversation", "pairs": "pair", "rankings": "pair", "hh": "pair", "prompts": "prompt",
    "mt_bench": "prompt",
    **dict.fromkeys(["dolly", "completions", "sharegpt", "moss", "natural_instructions", "flan_cot", "aqua", "mmlu",
                     "belle"], "conversation"),
    "sharegpt_pairs": "pair", "kto": "pair", "alpaca_rankings": "pair", "alpaca_eval": "pair", "oasst": "pair",
    "ratings": "pair", "rules": "pair",
}  # fmt: skip


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def packed(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def parquet(rows: list[dict]) -> bytes:
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue().to_pybytes()


def read(path: Path | str, kind: Kind, name: str = "auto") -> SourceRows:
    return read_source(SourceSpec(path=str(path), format=name), kind)  # type: ignore[arg-type]


def one(tmp_path: Path, name: str, row: dict, kind: Kind | None = None):
    source = read(write(tmp_path / "rows.jsonl", row), kind or KIND[name], name)
    return source.rows[0] if source.rows else dict(source.dropped)


def assert_told(tmp_path: Path, name: str, row: object, what: str) -> None:
    """The bad row behind a good one is told with file and line, its fault and a remedy."""
    path = write(tmp_path / "rows.jsonl", GOOD[name], row)
    with pytest.raises(DataError) as error:
        read(path, KIND[name], name)
    (problem,) = error.value.problems
    assert problem.where == f"{path}:2" and what in problem.what and problem.remedy


@pytest.mark.parametrize("name", GOOD)
def test_auto_finds_the_format_in_every_kind_of_file(tmp_path, name):
    lines = "".join(json.dumps(row) + "\n" for row in [GOOD[name]] * 3)
    files = {
        "a.jsonl": lines.encode(),
        "b.json": json.dumps([GOOD[name]] * 3, indent=1).encode(),
        "c.json": lines.encode(),
        "d.jsonl.gz": gzip.compress(lines.encode()),
        "e.jsonl": b"\xef\xbb\xbf" + lines.replace("\n", "\r\n\r\n").encode(),
        "f.jsonl.zst": packed(lines.encode()),
        "g.parquet": parquet([GOOD[name]] * 3),
    }
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
        assert detect_format(tmp_path / file) == name
        source = read(tmp_path / file, KIND[name])
        assert (source.format, source.rows_read) == (name, 9 if name == "rankings" else 3)
    assert read(tmp_path, KIND[name]).rows_read == 7 * (9 if name == "rankings" else 3)


def test_a_pretty_printed_object_is_one_row(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(GOOD["alpaca"], indent=2))
    assert read(tmp_path / "one.json", "conversation").rows_read == 1


def test_alpaca_joins_instruction_and_input(tmp_path):
    row = one(tmp_path, "alpaca", GOOD["alpaca"])
    assert row == Conversation(row.origin, chat("Add.\n\n1 2", "3"), "alpaca") and row.origin.line == 1
    for nothing in ("", "<noinput>", " <NoInput> ", "No input."):
        assert one(tmp_path, "alpaca", {**GOOD["alpaca"], "input": nothing}).turns == chat("Add.", "3")
    assert one(tmp_path, "alpaca", {"instruction": "Add.", "output": "3"}).turns == chat("Add.", "3")
    assert one(tmp_path, "alpaca", {**GOOD["alpaca"], "output": "  "}) == {"empty_answer": 1}
    assert one(tmp_path, "alpaca", GOOD["alpaca"], "prompt").turns == chat("Add.\n\n1 2")
    assert one(tmp_path, "alpaca", GOOD["alpaca"], "document").turns == chat("Add.\n\n1 2", "3")


def test_self_instruct_gives_a_row_an_instance(tmp_path):
    row = {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": ""}]}
    source = read(write(tmp_path / "a.jsonl", row), "conversation")
    assert [r.turns for r in source.rows] == [chat("Add.\n\n1 2", "3")]
    assert source.dropped == {"empty_answer": 1} and source.rows_read == 2


def test_gsm8k_keeps_the_steps_and_the_final_line_without_calculator_marks(tmp_path):
    answer = "48/2 = <<48/2=24>>24 clips.\nIn all $<<48+24=72>>72.\n#### 72"
    row = one(tmp_path, "gsm8k", {"question": "How many? ", "answer": answer})
    assert row.turns == chat("How many?", "48/2 = 24 clips.\nIn all $72.\n#### 72")


def test_messages_are_read_and_what_follows_the_last_answer_is_cut(tmp_path):
    messages = [{"role": r, "content": c} for r, c in
                [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", " c ")]]  # fmt: skip
    row = {"id": "x", "family": "fact", "messages": messages, "gold": {}}
    assert one(tmp_path, "messages", row).turns == chat("a", "b", system="S")
    assert one(tmp_path, "messages", row).family == "fact"
    assert one(tmp_path, "messages", row, "prompt").turns == chat("a", "b", "c", system="S")
    assert one(tmp_path, "messages", {"messages": messages[1:2]}) == {"no_answer": 1}
    assert one(tmp_path, "messages", {"messages": messages[2:3]}) == {"no_prompt": 1}
    assert one(tmp_path, "messages", {"messages": [{"role": "user", "content": ""}]}) == {"empty_turn": 1}


def test_pairs_carry_margin_and_kind_and_take_messages_as_prompt(tmp_path):
    row = one(tmp_path, "pairs", {**GOOD["pairs"], "margin": 2, "kind": "manner", "key": "k", "id": 3})
    assert row == Pair(row.origin, chat("Hi"), "good", "bad", 2.0, "manner")
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert one(tmp_path, "pairs", {**GOOD["pairs"], "prompt": prompt}).prompt == chat("a", "b", "c")
    assert one(tmp_path, "pairs", {**GOOD["pairs"], "rejected": " good"}) == {"answers_equal": 1}
    assert one(tmp_path, "pairs", {**GOOD["pairs"], "chosen": ""}) == {"empty_answer": 1}


def test_rankings_become_all_pairs(tmp_path):
    source = read(
        write(tmp_path / "r.jsonl", {"prompt": "Hi", "answers": ["a", "b", "c", "a"], "kind": "k"}), "pair"
    )
    assert [(row.chosen, row.rejected) for row in source.rows] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("b", "a"),
        ("c", "a"),
    ]
    assert source.dropped == {"answers_equal": 1} and {row.kind for row in source.rows} == {"k"}


def hh(prompt: str, chosen: str, rejected: str) -> dict:
    return {"chosen": prompt + chosen, "rejected": prompt + rejected}


def test_hh_splits_the_dialogues_at_the_last_shared_answer_mark(tmp_path):
    first = "\n\nHuman: Hi\nyou\n\nAssistant: Ho\n\nHuman: More?\n\nAssistant:"
    row = one(tmp_path, "hh", hh(first, " Yes, a", " Yes, b\n\nwith Human: in it"))
    assert row.prompt == chat("Hi\nyou", "Ho", "More?")
    assert (row.chosen, row.rejected) == ("Yes, a", "Yes, b\n\nwith Human: in it")
    assert one(tmp_path, "hh", hh(first, " a", " b"), "prompt").turns == row.prompt
    assert one(tmp_path, "hh", hh(first, " a", " b"), "document").turns == (
        *row.prompt,
        Turn("assistant", "a"),
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (hh("\n\nHuman: Hi\n\nAssistant:", " a\n\nHuman: b\n\nAssistant: c", " d"), "further_turns"),
        (hh("\n\nHuman: Hi\n\nAssistant:", " a", " a "), "answers_equal"),
        (hh("\n\nHuman: Hi\n\nAssistant:", " a", "  "), "empty_answer"),
        (hh("\n\nHuman:\n\nAssistant:", " a", " b"), "empty_turn"),
        (hh("\n\nHuman: a\n\nHuman: b\n\nAssistant:", " a", " b"), "roles_out_of_order"),
        (hh("\n\nAssistant: a\n\nAssistant:", " a", " b"), "roles_out_of_order"),
        (hh("no marks", " a", " b"), "no_common_prompt"),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: y"},
            "no_common_prompt",
        ),
    ],
)
def test_hh_drops_degenerate_rows_by_name(tmp_path, row, reason):
    assert one(tmp_path, "hh", row) == {reason: 1}


def test_prompts_carry_family_and_gold(tmp_path):
    row = one(tmp_path, "prompts", GOOD["prompts"])
    assert row == Prompt(row.origin, chat("Hi"), "f", {"kind": "unsafe", "answers": []})


# Plain text


def test_text_groups_paragraphs_to_about_2000_characters(tmp_path):
    paragraphs = [f"Paragraph {i}. " + "word " * 120 for i in range(10)]
    (tmp_path / "a.txt").write_text("\n\n \n".join(p.strip() for p in paragraphs), newline="\r\n")
    rows = read(tmp_path / "a.txt", "document").rows
    assert "\n\n".join(row.text for row in rows) == "\n\n".join(p.strip() for p in paragraphs)
    assert all(1000 < len(row.text) <= GROUP_CHARS for row in rows[:-1])
    assert [row.origin.line for row in rows] == [1, 10, 19, 28][: len(rows)]


def test_text_takes_long_paragraphs_line_by_line(tmp_path):
    lines = [f"line {i} " + "w" * 90 for i in range(60)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    rows = read(tmp_path / "a.txt", "document").rows
    assert "\n".join(row.text for row in rows).split("\n") == lines and len(rows) == 3
    (tmp_path / "a.txt").write_text("x" * 5000)
    assert [len(row.text) for row in read(tmp_path / "a.txt", "document").rows] == [5000]


def test_text_is_utf8_or_latin_1_and_loses_the_gutenberg_frame(tmp_path):
    start, end = "*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "End of the Project Gutenberg EBook of X"
    book = f"junk\n\n{start}\n\nCafé.\n\n{end}\n\nlicence"
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        (tmp_path / "a.txt").write_bytes(book.encode(encoding))
        assert [row.text for row in read(tmp_path / "a.txt", "document").rows] == ["Café."]
    (tmp_path / "a.txt").write_text("One.\n\nEnd of the Project Gutenberg story in my own words.")
    assert len(read(tmp_path / "a.txt", "document").rows[0].text) > 10  # no start marker: nothing is cut


@pytest.mark.parametrize(
    ("file", "content", "name"),
    [
        ("a.txt", "\n", "auto"),
        ("a.csv", "instruction,output\n", "auto"),
        ("a.jsonl", "", "alpaca"),
        ("a.json", "[]", "pairs"),
    ],
)
def test_a_source_without_a_row_is_told(tmp_path, file, content, name):
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=f"{file}: there are no rows\n.*take the source out"):
        read(tmp_path / file, KIND.get(name, "document"), name)


def test_the_first_few_malformed_rows_are_told_and_how_many_more_there_are(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = json.dumps(GOOD["alpaca"])
    half = '{"instruction": "\\ud800", "output": "a"}'
    rows = [good, '{"instruction": "a", "output": 1}', good, "nope", "3", half, good]
    path.write_bytes("\n".join(rows).encode() + b"\n\xff\n")
    with pytest.raises(DataError) as error:
        read(path, "conversation", "alpaca")
    *told, last = error.value.problems
    assert [problem.where for problem in told] == [f"{path}:{line}" for line in (2, 4, 5)]
    assert last.where == str(path) and last.what == "5 rows cannot be read, the first 3 as told; 3 can"
    assert all(problem.remedy for problem in error.value.problems)
    (tmp_path / "b.csv").write_text("instruction,output\na\nb,c\nd,e,f\n")
    with pytest.raises(DataError) as error:
        read(tmp_path / "b.csv", "conversation")
    assert [problem.where.rpartition(":")[2] for problem in error.value.problems] == ["2", "4"]


# Faults


@pytest.mark.parametrize(
    ("name", "row", "what"),
    [
        ("alpaca", {"instruction": 3, "output": "x"}, '"instruction" is a number'),
        ("alpaca", {"instruction": " ", "output": "x"}, '"instruction" is empty'),
        ("alpaca", {"output": "x"}, '"instruction" is missing (keys: output)'),
        ("gsm8k", {"question": "q", "answer": "42"}, 'no line "#### number"'),
        ("messages", {"messages": "x"}, '"messages" is a string'),
        ("messages", {"messages": []}, '"messages" is empty'),
        ("messages", {"messages": [{"role": "bot", "content": "x"}]}, 'unknown role "bot"'),
        ("messages", {"messages": [{"role": "user"}]}, '"content" is missing'),
        (
            "messages",
            {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]},
            "system turn",
        ),
        ("self_instruct", {"instruction": "a", "instances": []}, '"instances" is empty'),
        ("pairs", {"prompt": "", "chosen": "a", "rejected": "b"}, '"prompt" is empty'),
        ("pairs", {"prompt": "a", "chosen": ["x"], "rejected": "b"}, '"chosen" is a list'),
        ("pairs", {**GOOD["pairs"], "margin": "big"}, '"margin" is a string'),
        ("pairs", {**GOOD["pairs"], "margin": float("inf")}, '"margin" is a number'),
        (
            "pairs",
            {**GOOD["pairs"], "prompt": [{"role": "assistant", "content": "x"}]},
            "ends with a assistant turn",
        ),
        ("rankings", {"prompt": "a", "answers": ["x"]}, '"answers" has 1 entries'),
        ("rankings", {"prompt": "a", "answers": ["x", 2]}, '"answers"[1] is a number'),
        ("documents", {"text": "\ud800"}, "half of a surrogate pair"),
        ("documents", [1], "the row is a list"),
        ("prompts", {"prompt": "a", "gold": 3}, '"gold" is a number'),
        ("pairs", {"chosen": [{"role": "user", "content": "x"}], "rejected": "b"}, '"rejected" is a string'),
        ("sharegpt_pairs", {**GOOD["sharegpt_pairs"], "conversations": []}, '"conversations" is empty'),
        (
            "sharegpt_pairs",
            {**GOOD["sharegpt_pairs"], "conversations": [{"from": "gpt", "value": "x"}]},
            "ends with a assistant turn",
        ),
        (
            "sharegpt_pairs",
            {**GOOD["sharegpt_pairs"], "conversations": [{"from": "bot", "value": "x"}]},
            'unknown speaker "bot"',
        ),
        (
            "sharegpt_pairs",
            {**GOOD["sharegpt_pairs"], "chosen": {"from": "human", "value": "x"}},
            "is a user turn",
        ),
        ("sharegpt_pairs", {**GOOD["sharegpt_pairs"], "chosen": 3}, '"chosen" is a number'),
        ("kto", {**GOOD["kto"], "label": "good"}, '"label" is a string'),
        ("kto", {"prompt": "a", "completion": 3, "label": True}, '"completion" is a number'),
        ("alpaca_rankings", {**GOOD["alpaca_rankings"], "output": ["3"]}, '"output" has 1 entries'),
        ("alpaca_rankings", {**GOOD["alpaca_rankings"], "instruction": ""}, '"instruction" is empty'),
        (
            "alpaca_rankings",
            {**GOOD["alpaca_rankings"], "history": [["a"]]},
            '"history"[0] is not [question, answer]',
        ),
        (
            "alpaca_rankings",
            {**GOOD["alpaca_rankings"], "history": "a"},
            '"history" is a string',
        ),
        ("alpaca_eval", {**GOOD["alpaca_eval"], "preference": 3}, '"preference" is 3'),
        ("alpaca_eval", {**GOOD["alpaca_eval"], "preference": "2"}, '"preference" is a string'),
        ("oasst", {**GOOD["oasst"], "prompt": {"text": "x", "role": "bot"}}, 'unknown role "bot"'),
        ("oasst", {**GOOD["oasst"], "prompt": {"text": "x", "role": "assistant"}}, "starts with an answer"),
        (
            "oasst",
            {
                **GOOD["oasst"],
                "prompt": {"text": "x", "role": "prompter", "replies": [{"text": "x", "role": "prompter"}]},
            },
            "a reply of the same role",
        ),
        (
            "ratings",
            {"prompt": "a", "answers": [{"text": "b", "ratings": {"help": 1}}]},
            '"answers" has 1 entries',
        ),
        ("ratings", {"prompt": "a", "answers": [{"text": "b"}, {"text": "c"}]}, 'an answer has no "ratings"'),
        (
            "ratings",
            {"prompt": "a", "answers": [{"text": "b", "ratings": {"help": [1, "x"]}}] * 2},
            '"help" is a string',
        ),
        ("ratings", {"prompt": "", "answers": GOOD["ratings"]["answers"]}, '"prompt" is empty'),
        ("rules", {"prompt": "a", "answers": [{"text": "b"}] * 2}, '"violated" is missing'),
        ("rules", {"prompt": "a", "answers": [{"text": "b", "violated": []}]}, '"answers" has 1 entries'),
    ],
)
def test_malformed_rows_say_file_line_what_and_remedy(tmp_path, name, row, what):
    assert_told(tmp_path, name, row, what)


def test_damaged_files_say_where(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n{"text": \n')
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 99)[:-9])
    (tmp_path / "d.jsonl.gz").write_bytes(b"plain")
    (tmp_path / "e.json").write_bytes(b"[1, 2")
    (tmp_path / "f.jsonl").write_bytes(b"")
    (tmp_path / "g.jsonl").write_bytes(b'{"other": 1}')
    for name, where in {
        "a.jsonl": "a.jsonl:2: not JSON", "b.jsonl": "b.jsonl:2: not UTF-8", "c.jsonl.gz": "not a whole gzip",
        "d.jsonl.gz": "not a whole gzip", "e.json": "e.json: not JSON", "f.jsonl": "no rows", "g.jsonl": "these keys: other",
        "missing.jsonl": "no such data file", "*.csv": "no such data file",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=where.replace("*", ".")):
            read(tmp_path / name, "document")


def test_a_format_of_another_kind_is_refused_with_those_that_fit(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD["pairs"])
    with pytest.raises(DataError, match='"pairs" does not give conversation rows') as error:
        read(path, "conversation")
    assert all(name in str(error.value) for name in FORMATS_OF["conversation"])


def test_folders_skip_licences_and_repeat_no_file(tmp_path):
    write(tmp_path / "b.jsonl", GOOD["documents"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("Text.")
    for name in ("LICENSE.note.txt", "README.md", ".hidden.txt", "page.pdf"):
        (tmp_path / name).write_text("no")
    source = read_source(SourceSpec(path=[str(tmp_path), str(tmp_path / "*.jsonl")]), "document")
    assert [Path(row.origin.path).name for row in source.rows] == ["x.txt", "b.jsonl"]
    assert source.format == "text, documents"


def test_hidden_folders_are_skipped_and_data_is_not_for_its_name(tmp_path):
    for folder in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "._x.jsonl", GOOD["documents"])
    write(tmp_path / ".ipynb_checkpoints" / "x-checkpoint.jsonl", GOOD["documents"])
    write(tmp_path / "license-questions.jsonl", GOOD["documents"])
    (tmp_path / "LOUD.JSONL.GZ").write_bytes(gzip.compress(b'{"text": "loud"}\n'))
    source = read(tmp_path, "document")
    assert [file.name for file in source.files] == ["LOUD.JSONL.GZ", "license-questions.jsonl"]
    assert source.rows[0].text == "loud"
    (tmp_path / "b.jsonl.bz2").write_bytes(b"BZh")
    with pytest.raises(DataError, match=r"b.jsonl.bz2: .bz2 files are not read\n    unpack it"):
        read(tmp_path, "document")
    write(tmp_path / "b.jsonl", GOOD["documents"])  # it is there unpacked, too
    assert len(read(tmp_path, "document").files) == 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", gzip.compress(b"Once."), r"a.txt: the file is packed as .gz\n    rename it to a.txt.gz"),
        ("a.jsonl", gzip.compress(b'{"text": "x"}\n'), "the file is packed as .gz"),
        ("a.csv", pa.compress(b"text\nx\n", "zstd", asbytes=True), "packed as .zst\n    rename it to a.csv.zst"),
        ("a.jsonl.gz", pa.compress(b"{}", "zstd", asbytes=True), "packed as .zst\n    rename it to a.jsonl.zst"),
        ("a.parquet", gzip.compress(b"PAR1"), "the file is packed as .gz"),
        ("a.txt", b"PK\x03\x04\x00\x00", "a.txt: no text: there are zero bytes in it"),
        ("a.txt", "Once.".encode("utf-16-le"), "no text: there are zero bytes in it"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_not_read_as_such(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / name, "document")


def test_packed_files_of_several_parts_are_read_to_their_end(tmp_path):
    """As `cat a.gz b.gz`, `pzstd` and logs that are appended to make them."""
    parts = [b'{"text": "one"}\n', b'{"text": "two"}\n', b'{"text": "three"}\n']
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    (tmp_path / "a.jsonl.zst").write_bytes(
        b"".join(pa.compress(part, "zstd", asbytes=True) for part in parts)
    )
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        assert [row.text for row in read(tmp_path / name, "document").rows] == ["one", "two", "three"]


def test_files_as_windows_writes_them(tmp_path):
    """A byte-order mark, "\\r\\n", in cells too, and Notepad's "Unicode"."""
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfinstruction,output\r\nAsk,"one\r\ntwo"\r\n')
    (row,) = read(tmp_path / "a.csv", "conversation").rows
    assert [turn.content for turn in row.turns] == ["Ask", "one\ntwo"]
    (tmp_path / "a.txt").write_bytes("Är det så?\r\nJa.\r\n".encode("utf-16"))
    assert [row.text for row in read(tmp_path / "a.txt", "document").rows] == ["Är det så?\nJa."]
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\r\n\r\n{"text": "y"}\r\n')
    assert [row.origin.line for row in read(tmp_path / "a.jsonl", "document").rows] == [1, 3]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.dictionaries(
                st.sampled_from(["text", "messages", "prompt", "answers", "chosen", "rejected", "instruction",
                                 "instances", "output", "question", "answer", "gold", "margin", "role", "content",
                                 "history", "context", "response", "completion", "conversations", "tools", "system",
                                 "meta_instruction", "chat", "Definition", "Instances", "Categories", "rationale",
                                 "options", "correct", "choices", "A", "B", "C", "D", "std_answer", "class", "turns",
                                 "question_id", "user_prompt", "label", "output_1", "output_2", "preference",
                                 "message_tree_id"]),
                st.recursive(
                    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=9), st.just("\udfff")),
                    lambda inner: st.one_of(st.lists(inner, max_size=3),
                                            st.dictionaries(st.sampled_from(["role", "content", "input", "output", "from", "value",
                                                                             "turn_1", "Human", "MOSS", "text", "replies", "rank",
                                                                             "ratings", "violated"]), inner)),
                    max_leaves=6,
                ),
            ),
            max_size=3,
        ).map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode()),
    ),
    kind=st.sampled_from(["document", "conversation", "pair", "prompt"]),
    data_format=st.sampled_from(["auto", *GOOD]),
)  # fmt: skip
def test_any_bytes_give_rows_or_a_data_error(tmp_path, data, kind, data_format):
    (tmp_path / "any.jsonl").write_bytes(data)
    types = {"document": Document, "conversation": Conversation, "pair": Pair, "prompt": Prompt}
    try:
        source = read(tmp_path / "any.jsonl", kind, data_format)
    except DataError:
        return
    assert all(isinstance(row, types[kind]) for row in source.rows)
    assert source.rows_read == len(source.rows) + Counter(source.dropped).total()
