from __future__ import annotations

from aligner.data.packing import Block, pack_documents
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
