"""Byte-level BPE tokenizers with control tokens of their own, and what every tokenizer here must have."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from jinja2 import TemplateError
from jinja2.sandbox import SecurityError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from aligner.errors import ModelError, Problem
from aligner.sandbox.chat import render_messages
from aligner.sandbox.meter import OverspentError

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
CONTROL_TOKENS = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT)
MAX_LENGTH = 1_000_000  # the model's context is the limit, not the tokenizer

# A space before each content: in running text a word has one before it, and so it is the same token in a chat.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- ' ' + message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- elif message['role'] in ('system', 'user') -%}"
    "{{- '<|' + message['role'] + '|> ' + message['content'] -}}"
    "{%- else -%}"
    "{{- raise_exception('unknown role \"' ~ message['role'] ~ '\"; valid: system, user, assistant') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

# For base models that never saw a chat format: words and line breaks alone, so that no embedding starts untrained.
PLAIN_TEMPLATE = (
    "{%- if bos_token -%}{{- bos_token -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- 'Assistant:' -}}{%- generation -%}{{- ' ' + message['content'] + eos_token -}}{%- endgeneration -%}"
    "{{- '\\n\\n' -}}"
    "{%- elif message['role'] == 'user' -%}{{- 'User: ' + message['content'] + '\\n\\n' -}}"
    "{%- elif message['role'] == 'system' -%}{{- message['content'] + '\\n\\n' -}}"
    "{%- else -%}"
    "{{- raise_exception('unknown role \"' ~ message['role'] ~ '\"; valid: system, user, assistant') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)

logger = logging.getLogger(__name__)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens, bytes and control tokens included.

    Digits are split singly, so that numbers are spelt the same way everywhere; any text survives encode and decode.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return _with_control_tokens(tokenizer)


def _with_control_tokens(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="right",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """A tokenizer needs an end token, a pad token that is not the end token, and a chat template."""
    where = tokenizer.name_or_path or "tokenizer"
    problems = []
    if tokenizer.eos_token_id is None:
        problems.append(Problem(where, "no end-of-text token", "set eos_token in its tokenizer_config.json"))
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        fault = "no pad token" if tokenizer.pad_token_id is None else "the pad token is the end-of-text token"
        problems.append(Problem(where, fault, "give it a pad token of its own: ensure_pad(tokenizer, model)"))
    if tokenizer.chat_template is None:
        problems.append(
            Problem(where, "no chat template", "put a chat_template.jinja beside its tokenizer.json")
        )
    if problems:
        raise ModelError(problems)


def ensure_pad(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> bool:
    """Give the tokenizer a pad token of its own; true when the embeddings had to grow for it.

    A pad token that is the end token would hide the end of every answer from the loss.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
        logger.warning("%s: added the pad token %s", tokenizer.name_or_path, PAD)
    model.config.pad_token_id = tokenizer.pad_token_id
    if len(tokenizer) <= model.get_input_embeddings().num_embeddings:
        return False
    model.resize_token_embeddings(len(tokenizer))
    logger.warning("%s: embeddings grew to %d rows for it", tokenizer.name_or_path, len(tokenizer))
    return True


def ensure_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without a chat template one made of plain words ("User: ... Assistant: ...")."""
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
        logger.warning('%s: no chat template; using "User: ... Assistant: ..."', tokenizer.name_or_path)


def ensure_end(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the control token that ends an answer in the chat template the tokenizer's end token.

    Answers are learnt up to that token, and sampling stops at the end token alone: under the templates of Gemma, Phi-3
    or a Qwen base it is another one, and no answer would end. A template that refuses the probe refuses rows, too; one
    that does what templates may not, or takes more than one rendering may, is a ModelError.
    """
    said = "said7"
    talk = [{"role": "user", "content": "asked"}, {"role": "assistant", "content": said}]
    try:
        (text,) = render_messages([talk], tokenizer, tools=None, ask=False)
    except (OverspentError, SecurityError) as error:
        where = f"{tokenizer.name_or_path or 'tokenizer'}: chat template"
        remedy = "take another model, or put a harmless chat_template.jinja in its folder"
        raise ModelError(Problem(where, f"will not be rendered: {error}", remedy)) from error
    except TemplateError:
        return
    after = text.rpartition(said)[2]
    controls = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    end = min((token for token in controls if token in after), key=after.index, default=None)
    if end not in (None, tokenizer.eos_token):
        logger.warning(
            "%s: its chat template ends an answer with %s, not with its end token %s; so that is the end token now",
            tokenizer.name_or_path,
            end,
            tokenizer.eos_token,
        )
        tokenizer.eos_token = end
