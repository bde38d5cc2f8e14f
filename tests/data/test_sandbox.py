"""Templates of strangers: what they may not do, and what they may not cost."""

from __future__ import annotations

import resource
import threading
import time

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import SecurityError

from aligner.data.readers.tasks.sandbox import CompiledTemplate, template_problems
from aligner.sandbox.meter import OverspentError


def doubled(start: str, expression: str) -> str:
    return "".join(f"{{% set a = {expression if i else start} %}}" for i in range(60))


ENDLESS = {
    "loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    "text x number": "{{ 'a' * 10000000000 }}",
    "number x list": "{{ 10000000000 * [x] }}",
    "range": "{{ range(1000000000000) | list | length }}",
    "range, shorter": "{{ range(99999999) | list | length }}",
    "joined": doubled("x", "a ~ a"),
    "added": doubled("x", "a + a"),
    "nested lists": doubled("[x]", "[a, a]") + "{{ a == [1] }}",
    "nested dicts": doubled("x", "{1: a, 2: a}"),
    "written": "{% set a = 'x' * 1000000 %}{% for i in range(99999) %}{{ a }}{% endfor %}",
    "template text": "{% for i in range(99999) %}" + "a" * 10_000 + "{% endfor %}",
    "looked through": "{% set a = 'x' * 1000000 %}{% for i in range(99999) %}{% if 'y' in a %}{% endif %}{% endfor %}",
    "slices": "{% set a = 'x' * 1000000 %}{% for i in range(99999) %}{% set b = a[1:] %}{% endfor %}",
    "replace, a method": "{{ ('a' * 100000).replace('a', 'a' * 100000) }}",
    "replace, a filter": "{{ ('a' * 100000) | replace('a', 'a' * 100000) }}",
    "join, a method": "{{ ('a' * 100000).join(['b'] * 100000) }}",
    "join, a filter": "{{ range(100000) | join('a' * 100000) }}",
    "long numbers": doubled("9", "a * a"),
    "numbers of base 16": "{{ ('f' * 2000000) | int(0, 16) // 3 }}",
    "mapped": "{{ range(9999) | map('replace', '', 'a' * 99999) | list }}",
    "keys": "{% set v = big.keys() %}{% for i in range(3000) %}{% if v == v %}{% endif %}{% endfor %}",
    "items": "{% set v = big.items() %}{% for i in range(3000) %}{% if v == v %}{% endif %}{% endfor %}",
    "values": "{% set v = big.values() %}{% for i in range(9999) %}{% if 'y' in v %}{% endif %}{% endfor %}",
}  # fmt: skip

BIG = {f"key {i}": str(i) for i in range(100_000)}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_would_never_end_ends_soon_and_takes_little_memory(source):
    assert template_problems(source, "t.yaml:1", "t") == []
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(OverspentError):
        CompiledTemplate(source).render({"x": "text", "big": BIG})
    assert time.process_time() - began < 5  # some tenths of a second on an idle core
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB


def test_the_bound_holds_on_any_thread_and_each_rendering_has_its_own():
    template = CompiledTemplate("{{ x }}{% for i in range(n) %}{% endfor %}")
    found: list[object] = []

    def render(n: int) -> None:
        try:
            found.append(template.render({"x": "a", "n": n}))
        except OverspentError as error:
            found.append(type(error))

    for n in (50_000, 10**8, 50_000):
        thread = threading.Thread(target=render, args=[n])
        thread.start()
        thread.join()
    assert found == ["a", OverspentError, "a"]


REFUSED_WHEN_READ = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": 'the attribute "__class__" is private',
    "{{ x | attr('__class__') }}": 'no filter "attr" here',
    "{% import 'os' as os %}": "Import is not allowed",
    "{% include '/etc/passwd' %}": "Include is not allowed",
    "{% extends 'a' %}": "Extends is not allowed",
    "{% macro f() %}{{ f() }}{% endmacro %}": "Macro is not allowed",
    "{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}": "a recursive loop is not allowed",
    "{% set a %}{{ x }}{% endset %}": "AssignBlock is not allowed",
    "{% filter upper %}x{% endfilter %}": "FilterBlock is not allowed",
    "{{ 9 ** 9 ** 9 }}": "Pow is not allowed",
    "{{ x | pprint }}": 'no filter "pprint" here',
    "{{ x | random }}": 'no filter "random" here',
    "{{ x | lowr }}": 'no filter "lowr" here',
    "{{ x is callable }}": 'no test "callable" here',
    "{{ x": "unexpected end of template",
    "{% if x %}": "endif",
    "one\ntwo {{ a b }}": 'template "t", line 2: expected token',
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}": "recursion",
}  # fmt: skip


@pytest.mark.parametrize("source", REFUSED_WHEN_READ, ids=lambda source: source[:30])
def test_what_templates_may_not_do_is_told_when_they_are_read(source):
    problems = template_problems(source, "tasks/t.yaml:7:5", "t")
    assert len(problems) >= 1 and REFUSED_WHEN_READ[source] in "\n".join(map(str, problems))
    assert all(problem.where == "tasks/t.yaml:7:5" and problem.remedy for problem in problems)


def test_a_misspelt_filter_has_a_nearest_one():
    assert template_problems("{{ x | lowr }}", "f:1", "t")[0].remedy == 'did you mean "lower"?'


@pytest.mark.parametrize(
    "source",
    [
        "{{ x['__class__'] }}", "{{ x.format }}", "{{ '{0.__class__}'.format(x) }}", "{{ x['format_map'](x) }}",
        "{{ [x] | map(attribute='__class__') | list }}", "{{ '%9999999999d' % 1 }}", "{{ x.encode() }}",
        "{{ rows.append(1) }}", "{{ rows.clear() }}", "{{ field.update({}) }}", "{{ x.zfill(9) }}",
        "{{ x.rfind('x') }}", "{{ x.rsplit('x') }}", "{{ 1.5 | round(16000000, 'ceil') }}", "{{ 1.5 | round(-31) }}",
    ],
)  # fmt: skip
def test_ways_out_of_the_sandbox_are_shut_when_a_row_comes(source):
    assert template_problems(source, "f:1", "t") == []
    values = {"x": "text", "rows": [1], "field": {"a": 1}}
    with pytest.raises(SecurityError):
        CompiledTemplate(source).render(values)
    assert values == {"x": "text", "rows": [1], "field": {"a": 1}}


@pytest.mark.parametrize(
    "source",
    ["{{ self }}", "{{ range }}", "{{ x.upper }}", "{{ none }}", "{{ [none] }}", "{{ cycler(1) }}", "{{ lipsum() }}",
     "{{ namespace(a=1) }}", "{{ y }}", "{{ [1][5] }}", "{{ x.nothing }}", "{{ x() }}", "{{ x + 1 }}"],
)  # fmt: skip
def test_what_means_nothing_is_a_failure_of_the_template(source):
    assert template_problems(source, "f:1", "t") == []
    with pytest.raises(Exception) as caught:
        CompiledTemplate(source).render({"x": "text"})
    assert not isinstance(caught.value, OverspentError)


ALLOWED = (
    "{{ x }} {{ x | upper }} {{ x.title() }} {{ x ~ n ~ 1.5 }} {{ x[1:3] }} {{ x[0] }}",
    "{% for word in x.split(' ') %}{{ loop.index }}/{{ loop.length }} {{ word }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{{ rows | map('upper') | join(' ') }} {{ ', '.join(rows) }} {{ rows | length }} {{ rows[n % 2] }} {{ rows | sort | first }}",
    "{{ {'A': 0, 'B': 1}['B'] }} {{ [1, 2][1 - 1] }} {{ '7' | int - 1 }} {{ (1, 2) | join }} {{ x | replace('t', 'T') | trim }}",
    "{% if n > 2 and x is string %}a{% elif n == 1 %}b{% else %}c{% endif %}{{ 'd' if n in [1, 2] else 'e' }}{{ 'f' if n > 99 }}",
    "{% set y = x | lower %}{{ y }}{% for k in range(rows | length) %}{{ ['A', 'B'][k % 2] }}: {{ rows[k] }}\n{% endfor %}",
    "{% for k, v in field.items() %}{{ k }}={{ v }};{% endfor %}{{ field.a }}{{ field['a'] }}{{ x is defined }}{{ z is defined }}",
    "{% for r in rows if r != 'one' %}{{ r }}{% endfor %}{{ rows | reverse | list | last }}{{ x.replace('t', 's', 1) }}{{ [3, 1] | max }}",
)  # fmt: skip


@pytest.mark.parametrize("source", ALLOWED)
@settings(max_examples=25, deadline=None)
@given(x=st.text(min_size=1), n=st.integers(0, 9), rows=st.lists(st.text(), min_size=2))
def test_what_is_allowed_means_what_it_means_in_jinja(source, x, n, rows):
    """The oracle: Jinja itself, unbounded."""
    values = {"x": x, "n": n, "rows": rows, "field": {"a": x}}
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    assert template_problems(source, "f:1", "t") == []
    assert CompiledTemplate(source).render(values) == plain.from_string(source).render(values)


def test_a_book_is_not_too_long():
    assert len(CompiledTemplate("{{ text }}\nSummary:").render({"text": "word " * 600_000})) == 3_000_009
