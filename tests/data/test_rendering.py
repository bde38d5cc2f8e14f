"""Chats rendered fast, against `apply_chat_template`, which is what people know."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from aligner.data.messages import as_messages
from aligner.sandbox.chat import render_messages
from tests.data.chats import TEMPLATES, chat
from tests.data.families import FAMILIES, tokenizer_of
from tests.tiny import tiny_tokenizer

CHATS = [as_messages(chat(*said)) for said in (["a", "b"], ["c <x> & {{ y }}", " d\n"], ["e", "f", "g", "h"])]
TOKENIZERS = {name: tokenizer_of(family) for name, family in FAMILIES.items()}
for name, template in TEMPLATES.items():
    TOKENIZERS[name] = tiny_tokenizer()
    TOKENIZERS[name].chat_template = template


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_chats_are_rendered_as_apply_chat_template_does(name, ask):
    tokenizer = TOKENIZERS[name]
    expected = [
        tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=ask) for given in CHATS
    ]
    assert render_messages(CHATS, tokenizer, tools=None, ask=ask) == expected


def test_a_tokenizer_with_a_rendering_of_its_own_is_asked():
    class Own(PreTrainedTokenizerFast):
        def apply_chat_template(self, conversation, **options):
            return [f"{len(given)} turns" for given in conversation]

    tokenizer = Own(tokenizer_object=tiny_tokenizer().backend_tokenizer, chat_template="{{ bos_token }}")
    assert render_messages(CHATS, tokenizer, tools=None, ask=False) == ["2 turns", "2 turns", "4 turns"]


def test_a_refusal_of_the_template_is_the_same_error():
    tokenizer = tiny_tokenizer()
    with pytest.raises(TemplateError, match="unknown role"):
        render_messages([*CHATS, [{"role": "judge", "content": "x"}]], tokenizer, tools=None, ask=False)
    with pytest.raises(TemplateError, match="unknown role"):
        render_messages([[{"role": "judge", "content": "x"}], *CHATS], tokenizer, tools=None, ask=False)
