"""Own chat templates of three habits, and rows to put through them."""

from __future__ import annotations

from aligner.data.rows import Conversation, Origin, Turn

# Nothing after the end token; no generation markers; the beginning token written by the template.
LLAMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Role names as text, a line feed before contents and after every end token; no beginning token.
CHATML_LIKE = (
    "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
# Plain words for roles: the generation prompt ends in text, and a line feed and more follow the end token.
PLAIN_WORDS = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}\n{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
# Tools as JSON before everything else, calls as JSON in the answer, results as turns of their own.
WITH_TOOLS = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{{ eos_token }}{% endif %}"
    "{% for m in messages %}<|{{ 'user' if m['role'] == 'tool' else m['role'] }}|>"
    "{% if m['role'] == 'tool' %}[{{ m['name'] }} {{ m['tool_call_id'] }}] {% endif %}{{ m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# A thinking block before the last answer alone, as Qwen3's: an empty one where the answer has none.
THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% set said = m['content'].split('</think>')[-1] %}"
    "{% if m['role'] == 'assistant' and loop.last %}"
    "{{ m['content'] if '</think>' in m['content'] else '<think></think>' + said }}"
    "{% else %}{{ said }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Control tokens inside a turn, as gpt-oss's: a call is parted by them and ends with one of its own.
HARMONY = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|start|>{{ m['role'] }}"
    "{% for call in m['tool_calls'] or [] %} to={{ call['function']['name'] }}<|channel|>commentary json"
    "<|message|>{{ call['function']['arguments'] | tojson }}<|call|>{% endfor %}{% if not m['tool_calls'] %}"
    "{{ '<|channel|>final' if m['role'] == 'assistant' }}<|message|>{{ m['content'] }}"
    "{{ '<|return|>' if m['role'] == 'assistant' else '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
TEMPLATES = {"llama": LLAMA_LIKE, "chatml": CHATML_LIKE, "plain": PLAIN_WORDS}

ORIGIN = Origin("rows.jsonl", 7)


def chat(*contents: str, system: str = "") -> tuple[Turn, ...]:
    """user, assistant, user, ... turns."""
    turns = tuple(Turn("assistant" if i % 2 else "user", content) for i, content in enumerate(contents))
    return (Turn("system", system), *turns) if system else turns


def conversation(*contents: str, line: int = 1, family: str = "") -> Conversation:
    return Conversation(Origin("rows.jsonl", line), chat(*contents), family)
