"""The tokenizer: control tokens, template, round trips."""

from pathlib import Path

import pytest
from jinja2 import TemplateError
from tokenizers import AddedToken
from transformers import AutoTokenizer, GenerationConfig

from aligner.errors import ModelError
from aligner.models.load import load_trained, save_model
from aligner.models.tokenizer import (
    CHAT_TEMPLATE,
    CONTROL_TOKENS,
    EOS,
    PLAIN_TEMPLATE,
    check_tokenizer,
    ensure_end,
    ensure_pad,
    ensure_template,
)
from tests.stages.tools import save_tiny
from tests.tiny import tiny_model, tiny_tokenizer

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What is 12 + 34?"},
    {"role": "assistant", "content": "46"},
    {"role": "user", "content": "Thanks."},
    {"role": "assistant", "content": "You are welcome."},
]


def test_control_tokens_are_single_and_distinct_and_the_vocabulary_is_as_large_as_asked():
    tokenizer = tiny_tokenizer(vocab_size=350)
    ids = [tokenizer.encode(token, add_special_tokens=False) for token in CONTROL_TOKENS]
    assert len(tokenizer) == 350
    assert all(len(one) == 1 for one in ids) and len({one[0] for one in ids}) == len(CONTROL_TOKENS)
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id, None)


def test_any_text_survives_and_numbers_are_spelt_digit_by_digit():
    tokenizer = tiny_tokenizer()
    text = "  The cat has 1234 é 你好 🙂\n\tballs  .\x00 don't "
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    spelt = tokenizer.convert_ids_to_tokens(tokenizer("1234", add_special_tokens=False)["input_ids"])
    assert spelt == ["1", "2", "3", "4"]
    assert "Ġcat" in tokenizer.get_vocab()  # a word with its leading blank is one token


def test_the_template_writes_control_tokens_and_marks_what_the_assistant_says():
    tokenizer = tiny_tokenizer()
    want = (
        "<|bos|><|system|> Be kind.<|user|> What is 12 + 34?<|assistant|> 46<|eos|>"
        "<|user|> Thanks.<|assistant|> You are welcome.<|eos|>"
    )
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == want
    prompt = tokenizer.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|bos|><|system|> Be kind.<|user|> What is 12 + 34?<|assistant|>"
    marked = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    spoken = [i for i, said in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if said]
    assert tokenizer.decode(spoken) == " 46<|eos|> You are welcome.<|eos|>"


def test_the_template_refuses_roles_it_does_not_know():
    with pytest.raises(TemplateError, match='unknown role "bot"; valid: system, user, assistant'):
        tiny_tokenizer().apply_chat_template([{"role": "bot", "content": "hi"}], tokenize=False)


def test_a_saved_tokenizer_comes_back_the_same(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = tokenizer.apply_chat_template(TALK, tokenize=False) + " 99 é"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
    assert (again.pad_token_id, again.eos_token_id, again.padding_side) == (0, 2, "right")
    assert (tmp_path / "chat_template.jinja").is_file()


def test_training_twice_gives_the_same_tokenizer():
    assert tiny_tokenizer().get_vocab() == tiny_tokenizer().get_vocab()


def test_check_tells_all_that_is_missing_at_once():
    tokenizer = tiny_tokenizer()
    check_tokenizer(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = None
    with pytest.raises(ModelError) as caught:
        check_tokenizer(tokenizer)
    assert len(caught.value.problems) == 2 and "pad token is the end-of-text token" in str(caught.value)


def test_a_missing_pad_token_is_added_and_the_embeddings_grow_only_when_they_must():
    tokenizer, model = tiny_tokenizer(), tiny_model()
    assert ensure_pad(tokenizer, model) is False  # nothing to do
    tokenizer.pad_token = tokenizer.eos_token
    assert ensure_pad(tokenizer, model) is False  # <|pad|> is in the vocabulary: no new row
    assert tokenizer.pad_token_id == 0 == model.config.pad_token_id
    tokenizer.add_tokens([f"<new{i}>" for i in range(3)])
    assert ensure_pad(tokenizer, model) is True
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == 387


def test_a_base_without_a_chat_template_gets_one_of_plain_words():
    tokenizer = tiny_tokenizer()
    ensure_template(tokenizer)
    assert tokenizer.chat_template != PLAIN_TEMPLATE
    tokenizer.chat_template = None
    ensure_template(tokenizer)
    text = tokenizer.apply_chat_template(TALK[1:3], tokenize=False)
    prompt = tokenizer.apply_chat_template(TALK[1:2], tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|>User: What is 12 + 34?\n\nAssistant: 46<|eos|>\n\n"
    assert text.startswith(prompt)


def test_the_end_of_an_answer_is_the_end_token_that_sampling_stops_at(tmp_path: Path, caplog):
    own = tiny_tokenizer()
    ensure_end(own)
    assert own.eos_token == EOS and not caplog.records
    gemmas = tiny_tokenizer()  # an end of turn that is not the end of text
    gemmas.chat_template = CHAT_TEMPLATE.replace("eos_token", "'<|system|>\\n'")
    ensure_end(gemmas)
    assert gemmas.eos_token == "<|system|>" and "not with its end token <|eos|>" in caplog.text
    gemmas.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|system|>"
    phis = tiny_tokenizer()  # and the end of text behind it
    phis.add_tokens(AddedToken("<|end|>", special=True))  # named nowhere else, as in its tokenizer
    phis.chat_template = CHAT_TEMPLATE.replace("eos_token", "'<|end|>'") + "{{ '<|eos|>' }}"
    ensure_end(phis)
    assert phis.eos_token == "<|end|>"
    for template in ("{{ raise_exception('no') }}", "{% for m in messages %}{{ m.content }}{% endfor %}"):
        other = tiny_tokenizer()
        other.chat_template = template
        ensure_end(other)
        assert other.eos_token == EOS


def test_a_base_that_ends_answers_otherwise_is_loaded_so_that_they_end(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("eos_token", "'<|system|>'")
    loaded = load_trained(save_tiny(tmp_path / "base", tokenizer))
    assert loaded.tokenizer.eos_token == "<|system|>"
    save_model(loaded, tmp_path / "again", base_folder=tmp_path / "base2")
    ends = GenerationConfig.from_pretrained(tmp_path / "again").eos_token_id
    assert set(ends) == {tokenizer.eos_token_id, loaded.tokenizer.eos_token_id}
