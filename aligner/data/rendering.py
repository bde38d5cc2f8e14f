"""Messages through a chat template, as `apply_chat_template` renders them, at half its cost for short rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aligner.data.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_messages(
    chats: Sequence[list[Message]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tools: list[Message] | None,
    ask: bool,
) -> list[str]:
    """Each chat as text; `ask` adds the generation prompt. Raises jinja2's `TemplateError` as the template does."""

    def usual(given: Sequence[list[Message]]) -> list[str]:
        texts = tokenizer.apply_chat_template(
            list(given), tools=tools, tokenize=False, add_generation_prompt=ask
        )
        return list(map(str, texts))

    render = _compiled(tokenizer, ask=ask) if tools is None and len(chats) > 1 else None
    if render is None or usual(chats[:1]) != [render(chats[0])]:
        return usual(chats)
    return [render(chat) for chat in chats]


def _compiled(tokenizer: PreTrainedTokenizerBase, *, ask: bool) -> Callable[[list[Message]], str] | None:
    """The template that transformers has compiled, its globals looked up once instead of for each row.

    None where a class has its own `apply_chat_template`, or this version of transformers keeps templates elsewhere.
    """
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import chat_template_utils

    compiled = getattr(chat_template_utils, "_compile_jinja_template", None)
    own = type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
    if compiled is None or own:
        return None
    template = compiled(tokenizer.get_chat_template())
    always = dict(template.globals) | tokenizer.special_tokens_map
    always |= {"tools": None, "documents": None, "add_generation_prompt": ask}

    def render(chat: list[Message]) -> str:
        context = template.new_context({**always, "messages": chat}, shared=True)
        return template.environment.concat(template.root_render_func(context))

    return render
