from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from aligner.data.packing import Block, best_fit, pack_documents
from aligner.data.rows import Document, Origin
from aligner.data.tokens import document_ids
from tests.tiny import tiny_tokenizer

TEXTS = ["The cat is red.", "x", "Tom has the ball. " * 5, "What is 7 + 5?"]
DOCUMENTS = [Document(Origin("t.txt", i), text=text) for i, text in enumerate(TEXTS, start=1)]


def stream(tokenizer):
    return [token for document in DOCUMENTS for token in document_ids(document, tokenizer)]


def test_packing_preserves_every_token_in_order():
    tokenizer = tiny_tokenizer()
    whole = stream(tokenizer)
    for length in (2, 7, 16, len(whole), len(whole) + 1):
        blocks = pack_documents(DOCUMENTS, tokenizer, block_length=length, isolate=False)
        tokens = [token for block in blocks for token in block.input_ids]
        assert tokens == whole[: len(whole) // length * length]
        assert all(len(block.input_ids) == length and set(block.document_ids) == {0} for block in blocks)
        kept = pack_documents(DOCUMENTS, tokenizer, block_length=length, isolate=False, keep_rest=True)
        assert [token for block in kept for token in block.input_ids] == whole


def test_isolation_numbers_the_documents_of_a_block():
    tokenizer = tiny_tokenizer()
    bos = tokenizer.bos_token_id
    blocks = pack_documents(DOCUMENTS, tokenizer, block_length=16, isolate=True, keep_rest=True)
    for block in blocks:
        assert block.document_ids[0] == 0
        for index in range(1, len(block.input_ids)):
            new = block.input_ids[index] == bos
            assert block.document_ids[index] - block.document_ids[index - 1] == int(new)
    assert max(block.document_ids[-1] for block in blocks) >= 1


def test_positions_start_anew_with_every_document():
    assert Block([9, 9, 9, 9, 9], [0, 0, 1, 1, 2]).position_ids == [0, 1, 0, 1, 0]
    assert Block([9, 9, 9], [0, 0, 0]).position_ids == [0, 1, 2]


def test_nothing_gives_no_blocks():
    assert pack_documents([], tiny_tokenizer(), block_length=4, isolate=False) == []


def best_fit_by_the_book(lengths: list[int], room: int) -> list[list[int]]:
    """Looks at every pack for every row."""
    packs: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        left = [room - sum(lengths[i] for i in pack) - lengths[index] for pack in packs]
        fitting = [number for number, rest in enumerate(left) if rest >= 0]
        if fitting:
            packs[min(fitting, key=lambda number: left[number])].append(index)
        else:
            packs.append([index])
    return packs


@settings(deadline=None)
@given(st.data(), st.integers(1, 40))
def test_best_fit_is_best_fit(data, room):
    lengths = data.draw(st.lists(st.integers(1, room), max_size=60))
    packs, by_the_book = best_fit(lengths, room), best_fit_by_the_book(lengths, room)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= room for pack in packs)
    sizes = [sorted(sum(lengths[i] for i in pack) for pack in each) for each in (packs, by_the_book)]
    assert sizes[0] == sizes[1]
    shuffled = data.draw(st.permutations(lengths))
    assert len(best_fit(shuffled, room)) == len(packs)


def test_packs_worked_by_hand():
    # 6 opens a, 5 opens b; 4 fits a alone; 3 fits b; 2 fits b; 1 opens c
    assert best_fit([1, 2, 3, 4, 5, 6], 10) == [[5, 3], [4, 2, 1], [0]]
    # 2 goes where 3 are left, not where 4 are
    assert best_fit([7, 6, 2], 10) == [[0, 2], [1]]
    assert best_fit([], 10) == [] and best_fit([10, 10], 10) == [[0], [1]]
