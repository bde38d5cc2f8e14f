"""Chat templates of strangers: what they may not cost, what they may not do, and that the others mean what they did."""

from __future__ import annotations

import resource
import time

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import SecurityError
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from aligner.sandbox.chat import Message, render_messages
from aligner.sandbox.meter import OverspentError
from tests.data.chats import HARMONY, THINKING, WITH_TOOLS
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
CHAT: list[Message] = [
    {"role": "system", "content": " S "},
    {"role": "user", "content": "a <b> {{ x }} é\n</think>c"},
    {"role": "assistant", "content": "d"},
]
TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "x": ["<&>", 1.5]}}}
]


def with_template(source: str) -> PreTrainedTokenizerFast:
    TOKENIZER.chat_template = source
    return TOKENIZER


def render(source: str, *, tools: list[Message] | None = None, ask: bool = False) -> str:
    (text,) = render_messages([CHAT], with_template(source), tools=tools, ask=ask)
    return text


def doubled(start: str, expression: str) -> str:
    return "".join(f"{{% set a = {expression if i else start} %}}" for i in range(60))


LOOPS = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
BIG = "{% set a = 'x' * 1000000 %}"
ENDLESS = {
    "a constant that is worked out when compiled": "{{ 'A' * 200000000 }}",
    "loops over loops": LOOPS,
    "loops in a macro": "{% macro f() %}" + LOOPS + "{% endmacro %}{{ f() }}",
    "loops in generation": "{% generation %}" + LOOPS + "{% endgeneration %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a recursive loop": "{% for x in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    "a recursive loop over much": "{% set l = range(9000) | list %}{% for x in l recursive %}{% if x is number %}{{ loop(l) if loop.depth < 9 }}{% endif %}{% endfor %}",
    "template text in a macro": "{% macro f() %}{% for i in range(99999) %}" + "a" * 10_000 + "{% endfor %}{% endmacro %}{{ f() }}",
    "template text in a set block": "{% set t %}{% for i in range(99999) %}" + "a" * 10_000 + "{% endfor %}{% endset %}",
    "written": BIG + "{% for i in range(99999) %}{{ a }}{% endfor %}",
    "joined": doubled("'x'", "a ~ a"),
    "added": doubled("'x'", "a + a"),
    "added lists": doubled("['x']", "a + a"),
    "nested lists": doubled("['x']", "[a, a]") + "{{ a }}",
    "nested lists as JSON": doubled("['x']", "[a, a]") + "{{ a | tojson }}",
    "nested tuples as a key": doubled("'x'", "(a, a)") + "{{ {a: 1} }}",
    "in a namespace": "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "a namespace in itself": "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns }}",
    "mappings": BIG + "{% for i in range(99999) %}{% set d = dict(b=a, c=messages) %}{{ d }}{% endfor %}",
    "copied mappings": "{% set d = dict.fromkeys(range(50000)) %}{% for i in range(9999) %}{% set e = dict(d) %}{% endfor %}",
    "looked through": BIG + "{% for i in range(99999) %}{% if 'y' in a %}{% endif %}{% endfor %}",
    "compared": doubled("['x']", "[a, a]") + "{% set b = a %}{{ a == b }}",
    "slices": BIG + "{% for i in range(99999) %}{% set b = a[1:] %}{% endfor %}",
    "replace, a method": "{{ ('a' * 100000).replace('a', 'a' * 100000) }}",
    "replace, a filter": "{{ ('a' * 100000) | replace('a', 'a' * 100000) }}",
    "join, a method": "{{ ('a' * 100000).join(['b'] * 100000) }}",
    "join, a filter": "{{ range(100000) | join('a' * 100000) }}",
    "split from the right": "{{ ('a' * 2000000).rsplit('a' * 1000000 ~ 'b') | length }}",
    "mapped": "{{ range(9999) | map('replace', '', 'a' * 99999) | list }}",
    "indented": "{{ ('\\n' * 1000000) | indent(900) }}",
    "JSON with an indent": "{{ range(200000) | list | tojson(indent=900) }}",
    "long numbers": doubled("9", "a * a"),
    "long numbers of base 16": "{{ ('f' * 2000000) | int(0, 16) // 3 }}",
    "places for values": "{{ ('%s' * 10000) % ((('x' * 10000,) * 10000)) }}",
    "named places": "{{ ('%(a)s' * 10000) % {'a': 'x' * 10000} }}",
    "a wide place that does not end": "{{ ('{' ~ '1 ' * 4000000).format(1) }}",
    "places with signs": "{{ ('%' ~ '-' * 4000000) % 1 }}",
    "numbered places": "{{ ('{0}' * 10000).format('x' * 10000) }}",
    "text of a megabyte": "a" * 1_000_001,
}  # fmt: skip
REFUSED = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "unsafe",
    "{{ 'A' | center(200000000) }}": "width",
    "{{ cycler.__init__.__globals__.os.system('touch owned') }}": "unsafe",
    "{{ self.__init__.__globals__ }}": "unsafe",
    "{{ namespace.__init__ }}{{ namespace(__class__=1) }}": "underscore",
    "{{ messages.append(1) }}": "unsafe",
    "{{ ('%9999999999d') % 1 }}": "format",
    "{{ '%*d' % (999999999, 1) }}": "format",
    "{{ '%(a)9999999999d' % {'a': 1} }}": "format",
    "{{ '%(a(b))9999999999d' % {'a(b)': 1} }}": "format",
    "{{ '%-0.9999999999f' % 1 }}": "format",
    "{{ strftime_now('%_^999999999d') }}": "format",
    "{{ '{:>9999999999}'.format(1) }}": "format",
    "{{ '{:>{w}}'.format(1, w=999999999) }}": "format",
    "{{ '{a}'.format_map({'a': 1}) }}": "format_map cannot be called",
    "{{ strftime_now('%999999999d') }}": "format",
    "{{ 'x'.ljust(999999999) }}": "width",
    "{{ 'x'.zfill(999999999) }}": "width",
    "{{ [1] | tojson(indent=999999999) }}": "width",
    "{{ [1] | slice(999999999) | list }}": "width",
    "{{ [1] | batch(999999999, 'x') | list }}": "width",
    "{{ 1.5 | round(16000000, 'ceil') }}": "places",
    "{{ [[1], [2]] | sum(start=[]) }}": "summed",
    "{{ 9 ** 999999999 }}": "power",
    "{{ 'a'.translate({97: 'b' * 100000}) }}": "translate cannot be called",
    "{{ 'a'.encode() }}": "encode cannot be called",
    "{{ 'a\\tb'.expandtabs(999999999) }}": "expandtabs cannot be called",
    "{{ lipsum(999999) }}": "undefined",
    "{% include '/etc/passwd' %}": "loader",
    "{% import 'os' as os %}": "loader",
    "{{ messages | pprint }}": "pprint",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}": "compiled",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{{ messages[99].content.x }}": "no element 99",
}  # fmt: skip


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_would_never_end_ends_soon_and_takes_little_memory(source: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(OverspentError):
        render(source)
    assert time.process_time() - began < 5  # at most a second on an idle core
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB


@pytest.mark.parametrize("source", REFUSED, ids=lambda source: source[:40])
def test_what_a_template_may_not_do_is_an_error_of_the_template(
    source: str,
) -> None:
    began = time.process_time()
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert REFUSED[source] in str(caught.value) and time.process_time() - began < 2


@pytest.mark.parametrize(
    "source",
    ["{{ '{0.__class__}'.format(1) }}", "{{ messages | attr('__class__') }}", "{{ raise_exception.__globals__ }}",
     "{{ messages.__class__ }}", "{{ messages[0]['__class__'] }}", "{{ self.__init__ }}", "{{ namespace.__globals__ }}"],
)  # fmt: skip
def test_what_is_not_safe_to_see_is_not_there(source: str) -> None:
    assert render(source) == ""


ALLOWED = (
    WITH_TOOLS,
    HARMONY,
    THINKING,
    "{% macro say(m, n=1) %}[{{ m.role }} {{ n }}]{% endmacro %}{% for m in messages %}{{ say(m, n=loop.index) }}{% endfor %}",
    "{% set ns = namespace(n=0, last='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.content %}{% endfor %}{{ ns.n }}{{ ns.last }}",
    "{% for m in messages[::-1] %}{% if loop.last or not loop.first %}{{ loop.revindex0 }}/{{ loop.length }}{% endif %}{{ loop.cycle('a', 'b') }}{% if loop.changed(m.role) %}!{% endif %}{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m['content'] | trim | upper }}{% endfor %}",
    "{{ messages | map(attribute='role') | join(', ') }} {{ (messages | selectattr('role', 'equalto', 'user') | list | last).content }}",
    "{{ messages[1].content.split('</think>')[-1].lstrip('\\n') }}{{ messages[1].content.rsplit('<', 1) }}{{ 'x'.join(['a', 'b']) }}",
    "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{{ tools | tojson(indent=4, separators=(',', ': ')) }}{{ tools | tojson(sort_keys=true) }}",
    "{% for t in tools or [] %}{% for k, v in t.function.items() %}{{ k }}={{ v }};{% endfor %}{{ t.function.keys() | list }}{{ t.get('x', 'no') }}{% endfor %}",
    "{% set text %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ text | length }}{{ text | replace('a', 'bb') | title }}{{ text[2:-1] }}",
    "{% filter upper %}x{{ messages[0].role }}{% endfilter %}{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}y{% endcall %}",
    "{% generation %}{{ messages[0].content }}{% set inside = 1 %}{% endgeneration %}{{ inside is defined }}",
    "{{ '**{}** since 2024'.format('a') }}{{ 'cutoff 2024: *%s*' % 'b' }}{{ ', '.join({'c': 1}.keys()) }}",
    "{{ '%s-%05.2f' % ('a', 1.5) }}{{ '{:>5}|{0}'.replace('0', '') }}{{ '{0} {b}'.format('a', b=2) }}{{ '%02d' | format(7) }}",
    "{{ 7 // 2 }}{{ 2 ** 5 }}{{ 'ab' * 3 }}{{ [1] * 2 + [3] }}{{ 1.5 | round(1) }}{{ [3, 1, 2] | sort }}{{ [1, 2] | sum }}{{ -3 | abs }}",
    "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ documents is none }}{{ undefined_thing }}{{ none }}{{ true }}{{ [none, 'x'] }}",
    "{{ messages[0].content is string }}{{ tools is iterable }}{{ messages is mapping }}{{ 'role' in messages[0] }}{{ {'a': 1}.a }}{{ dict(a=1, b=[2]) }}",
    "{{ 'a\\nb' | indent(3) }}{{ 'a' | center(9) }}{{ [1, 2, 3] | batch(2) | list }}{{ 'x' | default('y') }}{{ z | default('y') }}{{ '<' | e }}{{ '<' | e ~ '<' }}",
    "{% for x in [[1, [2]], [3, []]] recursive %}{{ x[0] }}{% if x[1] %}{{ loop([[x[1][0], []]]) }}{% endif %}{% endfor %}{% block b %}in{% endblock %}{{ self.b() }}",
    "{%- for i in range(3) -%}\n  {% if i %}\n    {{ i }}\n  {% endif %}\n{%- endfor %}\n{# note #}end\n",
    "{% if add_generation_prompt %}<ask>{% endif %}{{ joiner(',')() }}{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}",
)  # fmt: skip


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("source", ALLOWED, ids=range(len(ALLOWED)))
def test_what_chat_templates_do_means_what_it_means_to_transformers(source: str, ask: bool) -> None:
    """The oracle: `apply_chat_template`, without limits."""
    for tools in (None, TOOLS):
        expected = with_template(source).apply_chat_template(
            CHAT, tools=tools, tokenize=False, add_generation_prompt=ask
        )
        assert render(source, tools=tools, ask=ask) == expected


def test_a_long_chat_is_not_too_long() -> None:
    """Ten thousand turns and ten million characters, in a template that looks at all of the chat at every turn."""
    source = (
        "{% for m in messages %}{% if m.content is string and not loop.last and messages | length > loop.index0 %}"
        "{{ m.role ~ ': ' + m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    chat = [{"role": "user", "content": "x" * 1000} for _ in range(10_000)]
    (text,) = render_messages([chat], with_template(source), tools=None, ask=False)
    assert len(text) == 9_999 * (1000 + len("user: ") + len("<|eos|>"))


def test_what_a_template_may_do_is_bound_by_what_the_chat_has() -> None:
    source = "{% for i in range(1000) %}{{ messages[0].content }}{% endfor %}"
    with pytest.raises(OverspentError):
        render_messages(
            [[{"role": "user", "content": "x" * 100_000}]], with_template(source), tools=None, ask=False
        )


def test_this_version_of_transformers_keeps_its_environment_where_it_is_looked_for() -> None:
    """Elsewhere templates would be rendered without limits."""
    assert chat_template_utils._compile_jinja_template("").environment.filters["tojson"]


def test_a_refusal_of_security_is_told_from_one_of_the_template() -> None:
    with pytest.raises(SecurityError):
        render("{{ 'x'.ljust(9999) }}")
    with pytest.raises(TemplateError) as caught:
        render("{{ raise_exception('no') }}")
    assert not isinstance(caught.value, SecurityError) and str(caught.value) == "no"
