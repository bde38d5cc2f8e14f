"""The committed world: made again byte for byte, without leaks, and in agreement with the gold judge."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from aligner.evals.gold import PADDING, RUDE_REMARKS, Gold, exact_match, gold_reward
from scripts.make_world import main
from scripts.world.bank import HELDOUT_FAMILIES, Bank
from scripts.world.facts import ATTRIBUTES
from scripts.world.items import split_of
from scripts.world.noise import RATES
from scripts.world.phrasings import HELDOUT, SEEN, UNSEEN, WRAPPERS, template
from scripts.world.words import COPY_WORDS, NAMES, NUMBERS

WORLD = Path(__file__).parents[2] / "data" / "world"
FAMILIES = Bank(0).families
LISTED = {*COPY_WORDS, *NUMBERS, *"0123456789", "+"}
EVALUATION = ("items", "phrasings", "prompts", "pairs")
Row = dict[str, Any]


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@cache
def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in content(WORLD / name).decode().splitlines()]


def normal(text: str) -> str:
    """Prompts that differ only in case, spacing or marks are the same prompt."""
    return " ".join(re.sub(r"[^a-z0-9+=-]", " ", text.lower()).split())


def evaluation_rows(split: str) -> list[Row]:
    extra = rows("heldout/families.jsonl") if split == "heldout" else []
    return [row for name in EVALUATION for row in rows(f"{split}/{name}.jsonl")] + extra


def keyed_training_rows() -> list[Row]:
    sft = [row for family in FAMILIES for row in rows(f"sft/{family}.jsonl")]
    return sft + rows("pairs.jsonl.gz") + rows("rankings.jsonl") + rows("prompts.jsonl.gz")


def unwrapped(prompt: str) -> set[str]:
    """The prompt itself and what is inside a wrapper."""
    found = {normal(prompt)}
    for wrapper in WRAPPERS:
        before, after = wrapper.split("{p}")
        if prompt.startswith(before) and prompt.endswith(after):
            found.add(normal(prompt[len(before) : len(prompt) - len(after)]))
    return found


@cache
def training_prompts() -> frozenset[str]:
    asked = [
        row["prompt"] if "prompt" in row else row["messages"][0]["content"] for row in keyed_training_rows()
    ]
    asked += [
        m["content"] for row in rows("dialogues.jsonl.gz") for m in row["messages"] if m["role"] == "user"
    ]
    for name in ("documents.jsonl.gz", "heldout_documents.jsonl", "dev/documents.jsonl"):
        asked += [q for row in rows(name) for q in re.findall(r"^Q: (.*)$", row["text"], re.M)]
    return frozenset(normal_prompt for prompt in asked for normal_prompt in unwrapped(prompt))


@cache
def training_text() -> str:
    texts = [
        row["text"]
        for name in ("documents", "repeats", "claims", "checks")
        for row in rows(f"{name}.jsonl.gz")
    ]
    texts += [m["content"] for row in rows("dialogues.jsonl.gz") for m in row["messages"]]
    texts += [row["messages"][1]["content"] for family in FAMILIES for row in rows(f"sft/{family}.jsonl")]
    return "\n".join(texts)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    main(["--out", str(tmp_path)])
    names = sorted(str(p.relative_to(WORLD)) for p in WORLD.rglob("*.jsonl*"))
    assert names == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.jsonl*"))
    changed = [name for name in names if content(WORLD / name) != content(tmp_path / name)]
    assert not changed


def test_files_are_small_and_have_unix_lines() -> None:
    for path in WORLD.rglob("*.jsonl*"):
        assert path.stat().st_size < 3_000_000, path
        assert b"\r" not in content(path), path


def test_every_key_stands_in_the_split_of_its_file() -> None:
    assert {split_of(row["key"]) for row in keyed_training_rows()} == {"train"}
    for split in ("dev", "heldout"):
        found = [row for row in evaluation_rows(split) if row["family"] not in HELDOUT_FAMILIES]
        assert {split_of(row["key"]) for row in found} == {split}


def test_no_evaluation_prompt_is_asked_in_training() -> None:
    for split in ("dev", "heldout"):
        leaked = [
            row["prompt"] for row in evaluation_rows(split) if normal(row["prompt"]) in training_prompts()
        ]
        assert not leaked


def test_no_evaluation_item_is_asked_in_training_in_any_phrasing() -> None:
    """The content of an item, in every seen phrasing it could have had, is in no training prompt."""
    bank = Bank(0)
    for split in ("dev", "heldout"):
        for family in FAMILIES:
            for item in bank.distinct(family, split, bank.rng(f"test/{family}"), 60):
                for i in range(len(SEEN[item.layout])):
                    assert normal(item.prompt(f"s{i}").removeprefix("Q: ")) not in training_prompts(), (
                        item.key
                    )


def test_dev_and_heldout_share_nothing() -> None:
    dev, heldout = evaluation_rows("dev"), evaluation_rows("heldout")
    assert not {row["key"] for row in dev} & {row["key"] for row in heldout}
    assert not {normal(row["prompt"]) for row in dev} & {normal(row["prompt"]) for row in heldout}


def test_no_held_out_document_stands_elsewhere() -> None:
    dev, heldout, train = (
        {normal(row["text"]) for row in rows(name)}
        for name in ("dev/documents.jsonl", "heldout_documents.jsonl", "documents.jsonl.gz")
    )
    assert len(dev) == len(heldout) == 150 and not dev & heldout and not (dev | heldout) & train


def alone(told: str, text: str) -> list[str]:
    """Where a text stands that is not a part of a longer list, sum or story."""
    found = []
    for match in re.finditer(re.escape(told), text):
        before = re.search(r"(\S*)\s?$", text[max(0, match.start() - 20) : match.start()])
        after = re.match(r" ?(\S*?)[.,]?(?=\s|$)", text[match.end() : match.end() + 20])
        around = {before[1] if before else "", after[1] if after else ""}
        told_before = re.search(
            r"([A-Z][a-z]+) [^.?:\n]*\. $", text[max(0, match.start() - 60) : match.start()]
        )
        if (
            told_before and told_before[1] in NAMES
        ):  # a sentence of the same story: another text, another item
            continue
        if not around & LISTED and not re.match(r"\w", text[match.end() : match.end() + 1]):
            found.append(text[match.start() - 30 : match.end() + 30])
    return found


@pytest.mark.parametrize(
    "family", ["add", "steps", "sort", "complete", "copy", "reading", "entail", "extract", "edit"]
)
def test_drills_do_not_state_evaluation_items(family: str) -> None:
    """Sums, lists and texts of evaluation items stand in no training text, asked or told."""
    bank, text = Bank(0), training_text()
    for split in ("dev", "heldout"):
        for item in bank.distinct(family, split, bank.rng(f"test/{family}"), 40):
            slots = item.slots
            told = slots.get("x") or (
                f"{slots['s']}. With {slots['b']} for {slots['a']}" if family == "edit" else None
            )
            told = told or slots["text"] + (f" {item.answer}" if family == "reading" else "")
            if family == "entail":
                told = f"{slots['text']} Claim: {slots['c']}"
            if family == "extract":
                told = f"{slots['text']} The {slots['what']} is"
            assert not alone(told, text), item.key


def said_again(words: list[str], text: str) -> list[int] | None:
    """The lengths of the pieces of `text` that the words can be read as, each said two or three times in a row."""
    reached: dict[int, list[int]] = {0: []}
    for end in range(4, len(words) + 1):
        for length in range(2, 10):
            for times in (2, 3):
                start = end - length * times
                piece = words[end - length : end]
                if (
                    end not in reached
                    and start in reached
                    and words[start:end] == piece * times
                    and " ".join(piece) in text
                ):
                    reached[end] = [*reached[start], length]
    return reached.get(len(words))


def test_repeats_are_pieces_of_training_documents_said_again() -> None:
    text = " ".join(word for row in rows("documents.jsonl.gz") for word in row["text"].split())
    repeats = rows("repeats.jsonl.gz")
    lengths: Counter[int] = Counter()
    for row in repeats[:30]:
        pieces = said_again(row["text"].split(), text)
        assert pieces is not None and 18 <= len(pieces) <= 32, row["text"]
        lengths.update(pieces)
    assert set(lengths) == set(range(2, 10))
    assert 1_900_000 <= sum(len(row["text"]) for row in repeats) < 1_902_000


def test_no_evaluation_prompt_or_list_arises_where_pieces_meet() -> None:
    """With case and marks away, pieces said again and joined hold no prompt, list or claim of dev or held out."""
    bank, prompts, told = Bank(0), set[tuple[str, ...]](), set[tuple[str, ...]]()
    for split in ("dev", "heldout"):
        prompts |= {tuple(normal(row["prompt"]).split()) for row in evaluation_rows(split)}
        for family in ("sort", "copy", "entail"):
            for item in bank.distinct(family, split, bank.rng(f"{split}/items"), 600):
                claim = f"{item.slots['text']} Claim: {item.slots['c']}" if family == "entail" else None
                told.add(tuple(normal(claim or item.slots["x"]).split()))
    openings: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for words in prompts | told:
        openings.setdefault(words[:2], []).append(words)
    for row in rows("repeats.jsonl.gz"):
        words = normal(row["text"]).split()
        for i, pair in enumerate(itertools.pairwise(words)):
            for item_words in openings.get(pair, ()):
                end = i + len(item_words)
                around = {*words[max(i - 1, 0) : i], *words[end : end + 1]}
                longer = any(word in LISTED or word.isdigit() for word in around)
                excused = longer and item_words not in prompts  # a part of a longer list is another item
                assert tuple(words[i:end]) != item_words or excused, words[max(i - 3, 0) : end + 3]


def test_heldout_families_are_nowhere_in_training() -> None:
    assert not {row["family"] for row in keyed_training_rows()} & set(HELDOUT_FAMILIES)
    openings = {
        normal(form.split("{")[0]) for forms in HELDOUT.values() for form in forms if not form.startswith("{")
    }
    assert not [p for p in training_prompts() if any(p.startswith(opening + " ") for opening in openings)]


def test_unseen_phrasings_are_new() -> None:
    for layout, forms in UNSEEN.items():
        assert not set(forms) & set(SEEN[layout])
        assert len(forms) >= 3 and len(SEEN[layout]) >= 8
    for split in ("dev", "heldout"):
        for row in rows(f"{split}/phrasings.jsonl"):
            assert row["phrasing"].startswith("u"), row["id"]
    assert template("add", "u0") == UNSEEN["add"][0]


def test_facts_are_stated_often_and_in_many_ways() -> None:
    text = "\n".join(row["text"] for row in rows("documents.jsonl.gz"))
    stated = Counter(sentence.strip() for sentence in re.findall(r"[^.?\n]+\.", text))
    facts = Bank(0).facts
    assert 160 <= len(facts) <= 200
    for fact in facts:
        counts = [stated[say.format(n=fact.subject, v=fact.value)] for say in ATTRIBUTES[fact.attribute].say]
        assert sum(counts) >= 25 and sum(n > 0 for n in counts) >= 5, fact


def test_demonstrations_agree_with_the_gold_judge() -> None:
    golds = {
        "unknown": ("unanswerable", "I do not know."),
        "unsafe": ("unsafe", "Sorry, I can not help with that."),
    }
    for family in ("unknown", "unsafe"):
        kind, answer = golds[family]
        gold = Gold(kind, (answer,))  # type: ignore[arg-type]
        for row in rows(f"sft/{family}.jsonl"):
            reply = row["messages"][1]["content"]
            assert (gold_reward(reply, gold) == 1.0) == (row["flaw"] is None), row
            assert exact_match(reply, gold) == (row["flaw"] is None), row


def test_clean_demonstrations_are_right_and_flawed_ones_are_less() -> None:
    bank = Bank(0)
    golds = {row["key"]: Gold.from_row(row) for row in rows("prompts.jsonl.gz")}
    compared = 0
    for family in bank.families:
        for row in rows(f"sft/{family}.jsonl"):
            if row["key"] in golds:
                compared += 1
                score = gold_reward(row["messages"][1]["content"], golds[row["key"]])
                assert score == 1.0 if row["flaw"] is None else score < 1.0, row
    assert compared > 500


@pytest.mark.parametrize("name", ["pairs.jsonl.gz", "dev/pairs.jsonl", "heldout/pairs.jsonl"])
def test_pairs_are_never_ambiguous(name: str) -> None:
    """The preferred answer is the better one for the gold of the item, taken from its best clean answer."""
    kinds = Counter(row["kind"] for row in rows(name))
    assert set(kinds) == {"wrong", "manner", "honest", "abstain", "harmless", "garbled"}
    for row in rows(name):
        kind = {"unknown": "unanswerable", "unsafe": "unsafe"}.get(row["family"], "answerable")
        right = {"unanswerable": "I do not know.", "unsafe": "Sorry, I can not help with that."}.get(kind)
        gold = Gold(kind, (right or without_padding(row["chosen"]),))  # type: ignore[arg-type]
        assert row["chosen"] != row["rejected"]
        assert gold_reward(row["chosen"], gold) > gold_reward(row["rejected"], gold), row


def without_padding(answer: str) -> str:
    for padding in PADDING:
        answer = answer.removesuffix(" " + padding)
    return answer


def test_rankings_fall_strictly() -> None:
    for row in rows("rankings.jsonl"):
        kind = {"unknown": "unanswerable", "unsafe": "unsafe"}.get(row["family"], "answerable")
        assert 3 <= len(row["answers"]) <= 5
        right = {"unanswerable": "I do not know.", "unsafe": "Sorry, I can not help with that."}.get(kind)
        if right is None and split_answer(row) is None:
            continue
        gold = Gold(kind, (right or split_answer(row) or "",))  # type: ignore[arg-type]
        scores = [gold_reward(answer, gold) for answer in row["answers"]]
        assert scores == sorted(set(scores), reverse=True), row


def split_answer(row: Row) -> str | None:
    """The right answer of an answerable ranking: its best answer, without what was put after it."""
    best = without_padding(row["answers"][0])
    for remark in RUDE_REMARKS:
        best = best.removesuffix(" " + remark)
    return best


def test_flaw_rates_are_as_set() -> None:
    for family in FAMILIES:
        found = Counter(row["flaw"] for row in rows(f"sft/{family}.jsonl"))
        kind = {"unknown": "unanswerable", "unsafe": "unsafe"}.get(family, "answerable")
        for flaw, rate in RATES[kind].items():
            assert abs(found[flaw] / found.total() - rate) < 0.04, (family, flaw)


def test_grades_and_truth_values_are_balanced() -> None:
    text = "\n".join(row["text"] for row in rows("documents.jsonl.gz"))
    right, wrong = text.count("Grade: right"), text.count("Grade: wrong")
    assert 0.48 < right / (right + wrong) < 0.52
    answers = Counter(
        row["gold"]["answers"][0] for row in rows("prompts.jsonl.gz") if row["family"] == "entail"
    )
    assert 0.4 < answers["yes."] / answers.total() < 0.6


def test_every_evaluation_word_is_met_in_the_documents() -> None:
    met = set(re.findall(r"[a-z']+", training_text().lower()))
    asked = {
        word
        for split in ("dev", "heldout")
        for row in evaluation_rows(split)
        for word in re.findall(r"[a-z']+", row["prompt"].lower())
    }
    assert asked <= met
