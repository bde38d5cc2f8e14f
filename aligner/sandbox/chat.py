"""Chat templates, which come with models: rendered as transformers renders them, within what one rendering may take.

The environment is transformers' own, so that templates mean what they mean there: macros, namespaces, loop controls,
`generation`, `tojson`. But all that is done is paid for (see `meter`), and what makes much of little is asked before
(see `growth`). transformers' own sandbox stops neither a loop over loops nor `'A' * 200000000`, which it works out as
soon as it compiles the template. A few filters that no chat needs and nobody can bound are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, Template, TemplateError, Undefined
from jinja2.ext import Extension
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Cycler, Joiner

from aligner.sandbox.growth import check_format, limited_filter, pay_for_method, to_json
from aligner.sandbox.meter import (
    BUDGET_UNITS,
    ITEM_UNITS,
    METER,
    NUMBER_BITS,
    STEP_UNITS,
    Meter,
    OverspentError,
    metered,
    paid,
    paid_range,
    size,
    spend,
    steps,
)
from aligner.sandbox.payments import Payments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
UNITS_PER_CHARACTER = 64  # of the chat, besides what every rendering may spend
MAX_SOURCE_CHARS = 1_000_000
_LEFT_OUT = ("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
# What takes no longer for a long value than for a short one.
_FREE_FILTERS = ("count", "d", "default", "first", "last", "length", "safe")
_DEAR_TESTS = (
    "==", "eq", "equalto", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">", "ge", ">=", "in",
    "lower", "upper",
)  # fmt: skip
_METHODS: dict[type, tuple[str, ...]] = {
    str: (
        "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
        "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust",
        "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust",
        "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
        "zfill",
    ),
    list: ("count", "index"),
    tuple: ("count", "index"),
    dict: ("get", "items", "keys", "values"),
}  # fmt: skip
_CALLED = (Macro, LoopContext, BlockReference, Joiner, Undefined)


def _concat(pieces: Iterable[str]) -> str:
    texts = list(pieces)
    spend(sum(map(len, texts)))
    return "".join(texts)


def _made(value: Any) -> Any:
    """A list, a mapping or a part of something, paid for by its own length: what it holds is there already."""
    spend(
        len(value) if isinstance(value, str) else ITEM_UNITS * len(value) if hasattr(value, "__len__") else 1
    )
    return value


def _joined(items: list[Any]) -> str:
    """What ~ makes."""
    paid(items)
    return "".join(map(str, items))


class _ChatSandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    concat = staticmethod(_concat)  # type: ignore[assignment]  # which Jinja calls as it stands

    def __init__(self, plain: Environment) -> None:
        extensions = [type(extension) for extension in plain.extensions.values()]
        super().__init__(
            trim_blocks=plain.trim_blocks,
            lstrip_blocks=plain.lstrip_blocks,
            extensions=extensions,
            finalize=paid,
            optimized=False,
        )
        self.filters = {name: self._filter(name, plain.filters[name]) for name in plain.filters}
        self.filters = {name: found for name, found in self.filters.items() if name not in _LEFT_OUT}
        self.filters |= {
            "tojson": metered(to_json),
            "steps": steps,
            "paid": paid,
            "made": _made,
            "joined": _joined,
        }
        self.tests = {
            name: metered(test) if name in _DEAR_TESTS else test for name, test in plain.tests.items()
        }
        self.globals = {name: found for name, found in plain.globals.items() if name != "lipsum"}
        self.globals |= {"range": paid_range, "strftime_now": _dated(plain.globals["strftime_now"])}

    def _filter(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        return plain if name in _FREE_FILTERS else metered(limited_filter(name, plain))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        plain = super().wrap_str_format(value)
        if plain is None or getattr(value, "__name__", "") != "format":
            return None  # format_map is refused when it is called

        @wraps(plain)
        def format_(*args: Any, **kwargs: Any) -> str:
            check_format(value.__self__, [*args, *kwargs.values()])
            return plain(*args, **kwargs)

        return format_

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Sums and products, both sides paid for; large powers are refused."""
        if operator == "+" and type(left) is type(right) is str:  # most of what chat templates do
            return paid(left + right)
        if operator == "%" and isinstance(left, str):
            check_format(left, right)
        elif operator == "**":
            spend(_bits(left) * _bits(right))
            if not isinstance(right, int | float) or abs(right) > NUMBER_BITS:
                raise SecurityError("a power like this is not allowed")
        elif operator == "*":
            for items, times in ((left, right), (right, left)):
                if isinstance(items, str | list | tuple) and isinstance(times, int):
                    spend(size(items) * max(times, 0))
        return paid(super().call_binop(context, operator, paid(left), paid(right)))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Macros, the template's own functions and listed methods; all other calls are refused."""
        spend(STEP_UNITS + ITEM_UNITS * (len(args) + len(kwargs)))
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if not __self._may_be_called(__obj, owner, name):
            raise SecurityError(f"{name or type(__obj).__name__} cannot be called here")
        if isinstance(owner, str | list | tuple | LoopContext):  # may look at all of what it is given
            for value in (owner, *args):
                paid(value)
        elif isinstance(__obj, LoopContext):  # a recursive loop
            args = (steps(args[0]), *args[1:]) if args else args
        elif not isinstance(__obj, _CALLED):  # which may copy it
            for value in (*args, *kwargs.values()):
                _made(value)
        if isinstance(owner, str):
            pay_for_method(owner, name, args)
        result = super().call(__context, __obj, *args, **kwargs)
        return paid(result) if isinstance(owner, str) else result

    def _may_be_called(self, called: Any, owner: Any, name: str) -> bool:
        if isinstance(called, _CALLED) or isinstance(owner, Extension | LoopContext | Cycler):
            return True
        if any(called is known or owner is known for known in self.globals.values() if known is not None):
            return True
        if hasattr(called, "__wrapped__") and name == "format":  # of `wrap_str_format`
            return True
        return any(isinstance(owner, kind) and name in names for kind, names in _METHODS.items())


def _bits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 64


def _dated(plain: Callable[[str], str]) -> Callable[[str], str]:
    """`strftime_now`, whose format may name no widths."""

    def strftime_now(format: str) -> str:
        check_format(format, "")
        return plain(format)

    return strftime_now


class _ChatTemplate:
    """A chat template that is compiled; raises jinja2's TemplateError where it cannot be, or does what it may not."""

    def __init__(self, source: str, plain: Environment) -> None:
        METER.set(Meter())  # constants are worked out when a template is compiled
        if len(source) > MAX_SOURCE_CHARS:
            raise OverspentError(f"has {len(source):,} characters, more than {MAX_SOURCE_CHARS:,}")
        environment = _ChatSandbox(plain)
        try:
            tree = Payments(environment, "joined").visit(environment.parse(source))
            code = environment.compile(tree)
        except (SyntaxError, RecursionError, ValueError, MemoryError) as error:
            raise TemplateError(f"it cannot be compiled ({error or 'nested too deeply'})") from error
        self._template = Template.from_code(environment, code, environment.globals)
        self.names = dict(self._template.globals)

    def render(self, values: dict[str, Any], chars: int) -> str:
        """The text for these values, of which `chars` characters are the chat's."""
        METER.set(Meter(BUDGET_UNITS + UNITS_PER_CHARACTER * chars))
        context = self._template.new_context(values, shared=True)
        try:
            return _concat(self._template.root_render_func(context))
        except (TemplateError, OverspentError):
            raise
        except RecursionError as error:
            raise OverspentError("calls itself without end") from error
        except Exception as error:  # whatever a stranger's template may do to values that it does not expect
            raise TemplateError(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=16)
def _compiled(source: str) -> _ChatTemplate | None:
    """None where this version of transformers keeps the environment of templates elsewhere."""
    from transformers.utils import chat_template_utils

    compile_plain = getattr(chat_template_utils, "_compile_jinja_template", None)
    return _ChatTemplate(source, compile_plain("").environment) if compile_plain else None


def render_messages(
    chats: Sequence[list[Message]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tools: list[Message] | None,
    ask: bool,
) -> list[str]:
    """Each chat as text, as `apply_chat_template` renders it; `ask` adds the generation prompt.

    Raises jinja2's `TemplateError` as the template does, and where it does what it may not; `OverspentError` where it
    takes more than one rendering may. A class with its own `apply_chat_template`, no template, is asked itself.
    """
    from transformers import PreTrainedTokenizerBase

    own = type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
    template = None if own else _compiled(tokenizer.get_chat_template(tools=tools))  # type: ignore[arg-type]
    if template is None:
        texts = tokenizer.apply_chat_template(
            list(chats), tools=tools, tokenize=False, add_generation_prompt=ask
        )
        return list(map(str, texts))
    always = template.names | tokenizer.special_tokens_map
    always |= {"tools": tools, "documents": None, "add_generation_prompt": ask}
    return [template.render({**always, "messages": chat}, _chars(chat)) for chat in chats]


def _chars(chat: list[Message]) -> int:
    """Characters of what is said; calls of tools aside."""
    return sum(len(message["content"]) for message in chat)
