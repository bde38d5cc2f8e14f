"""Templates that strangers wrote, rendered safely: a small part of Jinja, in which all that is done is paid for.

What a template may do is a closed list of nodes, filters, tests and methods: no imports, macros, blocks, private
attributes, random choices or formatting. Whatever it does is paid for before it is done (see `meter`). So a template
can neither run for long nor fill the memory, on any thread, and where it stops does not depend on the machine's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, nodes
from jinja2.filters import FILTERS, do_round
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.tests import TESTS

from aligner.errors import Problem, nearest
from aligner.sandbox.meter import (
    METER,
    VIEWS,
    Meter,
    metered,
    paid,
    paid_range,
    size,
    spend,
    steps,
)
from aligner.sandbox.payments import Payments

_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Name, nodes.Const,
    nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.Call, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Concat, nodes.Compare, nodes.Operand, nodes.And,
    nodes.Or, nodes.Not, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos,
)  # fmt: skip
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort",
    "title", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
_TESTS = (
    "boolean", "defined", "divisibleby", "eq", "equalto", "==", "even", "false", "float", "ge", "gt", "in", "integer",
    "iterable", "le", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sequence", "string", "true",
    "undefined", "upper",
)  # fmt: skip
MAX_PRECISION = 30  # places that `round` may keep
# Of texts there is no search from the right (rfind, rsplit), which takes the product of both lengths in CPython.
_METHODS: dict[type, tuple[str, ...]] = {
    str: (
        "capitalize", "casefold", "count", "endswith", "find", "index", "isalpha", "isdigit", "islower", "isupper",
        "join", "lower", "lstrip", "replace", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
    ),
    list: ("count", "index"),
    tuple: ("count", "index"),
    dict: ("get", "items", "keys", "values"),
    LoopContext: ("first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"),
}  # fmt: skip


class CompiledTemplate:
    """A template that passed all checks; `fields` are the names that a row must give it."""

    def __init__(self, source: str) -> None:
        """Raises TemplateError, or what else Python's own compiler objects to."""
        METER.set(Meter())  # constants are worked out when a template is compiled
        tree = _SANDBOX.parse(source)
        self.fields = frozenset(find_undeclared_variables(tree)) - _SANDBOX.globals.keys()
        tree = Payments(_SANDBOX, "join").visit(tree)
        self._template = Template.from_code(_SANDBOX, _SANDBOX.compile(tree), _SANDBOX.globals)

    def render(self, values: Mapping[str, object]) -> str:
        """The text for these values.

        Raises OverspentError and jinja2's SecurityError; any other Exception is the template failing on the values.
        """
        meter = Meter()
        METER.set(meter)
        context = self._template.new_context(dict(values))
        pieces = []
        for piece in self._template.root_render_func(context):
            meter.spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)


def template_problems(source: str, where: str, name: str) -> list[Problem]:
    """What a template may not do, or what is wrong with its syntax; nothing where it can be compiled."""
    try:
        tree = _SANDBOX.parse(source)
        problems = [
            Problem(where, f'template "{name}", line {line}: {what}', remedy)
            for line, what, remedy in _refused(tree)
        ]
        if not problems:
            CompiledTemplate(source)
    except (TemplateError, SyntaxError, RecursionError, ValueError) as error:
        line = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        remedy = "see jinja.palletsprojects.com/templates for how templates are written"
        return [Problem(where, f'template "{name}"{line}: {error or "nested too deeply"}', remedy)]
    return list(dict.fromkeys(problems))


def _refused(tree: nodes.Template) -> Iterator[tuple[int, str, str]]:
    """(line, what, remedy) of each thing that templates may not do."""
    plain = "templates have if, for, set, filters and expressions alone"
    for node in tree.find_all(nodes.Node):
        line = node.lineno
        if not isinstance(node, _NODES):
            yield line, f"{type(node).__name__} is not allowed", plain
        elif isinstance(node, nodes.For) and node.recursive:
            yield line, "a recursive loop is not allowed", plain
        elif isinstance(node, nodes.Filter) and node.name not in (*_FILTERS, *_OWN_FILTERS):
            yield line, f'no filter "{node.name}" here', nearest(node.name, [*_FILTERS, *_OWN_FILTERS])
        elif isinstance(node, nodes.Test) and node.name not in _TESTS:
            yield line, f'no test "{node.name}" here', nearest(node.name, _TESTS)
        elif isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            yield line, f'the attribute "{node.attr}" is private', "templates read the fields of a row alone"


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

    def wrap_str_format(self, value: Any) -> None:
        """No method formats: `is_safe_attribute` refuses it as any other that is not listed."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Sums and products, both sides paid for; powers and formatting by % are refused."""
        paid(left)
        paid(right)
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"{operator} is not allowed here")
        if operator == "*":
            for items, times in ((left, right), (right, left)):
                if isinstance(items, str | list | tuple) and isinstance(times, int):
                    spend(size(items) * max(times, 0))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Methods of texts, lists and mappings, and range; all other calls are refused."""
        kwargs = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        if isinstance(__obj, Undefined):
            return __obj()  # which says what is not defined, or not safe
        if __obj is paid_range:
            return paid_range(*args, **kwargs)
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if not __self.is_safe_attribute(owner, name, __obj):
            raise SecurityError(f"{name or type(__obj).__name__} cannot be called here")
        for value in (owner, *args, *kwargs.values()):
            paid(value)
        if name in _GROWING:
            return _GROWING[name](owner, *args, **kwargs)
        result = __obj(*args, **kwargs)
        return (
            result if isinstance(result, VIEWS) else paid(result)
        )  # a view is paid for where it is gone through


def _text(value: object) -> str:
    """What is written for a value. A null is an error, since no row means the word None, and so is any other object."""
    if isinstance(value, list | tuple | dict):
        paid(value)
        for item in value.values() if isinstance(value, dict) else value:
            _text(item)
    elif not isinstance(value, str | int | float | Undefined):
        raise TypeError(f"{'a null' if value is None else f'a {type(value).__name__}'} would be written")
    return str(value)


def _joined(items: Iterable[Any], separator: object = "") -> str:
    """The filter `join`, which takes no attribute here."""
    between, texts = _text(separator), [_text(item) for item in items]
    spend(len(between) * len(texts) + sum(map(len, texts)))
    return between.join(texts)


def _replaced(text: object, old: str, new: str, count: int = -1) -> str:
    """The filter and the method `replace`."""
    whole = _text(text)
    spend(len(whole) + len(new) * whole.count(old))
    return whole.replace(old, new, count)


def _rounded(
    number: float, precision: int = 0, method: Literal["common", "ceil", "floor"] = "common"
) -> float:
    """The filter `round`, which works out 10 to the precision."""
    if abs(precision) > MAX_PRECISION:
        raise SecurityError(f"round to {precision} places is not allowed, {MAX_PRECISION} are")
    return do_round(number, precision, method)


# Methods and filters that make more than they are given; they pay beforehand.
_GROWING: dict[str, Callable[..., Any]] = {
    "join": lambda separator, items: _joined(items, separator),
    "replace": _replaced,
}
_OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "join": _joined,
    "replace": _replaced,
    "round": _rounded,
    "string": _text,
}


def _sandbox() -> _Sandbox:
    sandbox = _Sandbox(undefined=StrictUndefined, finalize=_text, optimized=False, autoescape=False)
    own = {name: metered(function) for name, function in _OWN_FILTERS.items()}
    sandbox.filters = {name: metered(FILTERS[name]) for name in _FILTERS} | own
    sandbox.filters |= {"steps": steps, "paid": paid, "made": paid}
    sandbox.tests = {name: metered(TESTS[name]) for name in _TESTS}
    sandbox.globals = {"range": paid_range}
    return sandbox


_SANDBOX = _sandbox()
