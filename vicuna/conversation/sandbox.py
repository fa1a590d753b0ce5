"""A stranger's Jinja template, rendered within a budget of steps and characters.

A chat template comes with a model and is a program: loops in loops, strings that double, `'x' * 10**9`. Here it is
compiled so that it pays for what it does before it does it: each turn of a loop and each call a step, each text the
characters it will have. What it may spend follows from its input alone, never from a clock, so the same template and
messages end the same way on every machine. Nothing else changes what a template means: names, filters and functions are
those that transformers gives to chat templates.

Before: `chat_template` (which template, which messages). After: `meter` (what each thing costs).
"""

import functools
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from vicuna.conversation.message import TemplateError
from vicuna.conversation.meter import Meter, SpentError

MAX_TEMPLATE_CHARACTERS = 100_000
"""Of a chat template's source, which costs time to compile; the longest known ones have 30,000."""
MAX_TEMPLATE_NODES = 10_000
"""Of its syntax tree: a page of short expressions takes longer to compile than a page of text."""
MAX_CACHED_TEMPLATES = 16
MAX_DATE_GROWTH = 256  # of a date, by its format: where the C library ends
MAX_ERROR_CHARACTERS = 500  # of what a template says when it refuses messages
LEFT_OUT = ("urlize", "striptags", "pprint", "random", "wordwrap", "xmlattr")
"""Filters whose cost is no sum over their input, or that give something else each time; no chat template has them."""
STEP, TEXT, WRITE, LOOK, KEEP = (
    "a step",
    "a text",
    "is written",
    "is looked at",
    "is kept",
)  # no template can name these
T = TypeVar("T")


class ChatTemplate:
    """A compiled template.

    Args:
        source: Jinja, as in a tokenizer's `chat_template`.
        name: of the model or tokenizer, for errors.

    Raises:
        TemplateError: it is too long, or not Jinja.
    """

    def __init__(self, source: str, name: str) -> None:
        self._lock = threading.Lock()  # the environment has one meter at a time
        self._where = f"the chat template of {name}"
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateError(
                f"{self._where} has {len(source):,} characters, and {MAX_TEMPLATE_CHARACTERS:,} are read; "
                "name another template with --template"
            )
        self._environment = _Environment()
        self._template = self._bounded(Meter(), lambda: self._environment.from_string(source))

    def render(self, messages: Sequence[Mapping[str, str]], meter: Meter, *, now: datetime, **values: Any) -> str:
        """The messages as text.

        Args:
            meter: what the renderings of this conversation have left.
            now: the time, for templates that write a date.
            values: what else the template may name.

        Raises:
            TemplateError: the template refuses the messages, or spends more than it may.
        """
        meter.begin(len(messages), sum(len(message["content"]) for message in messages))
        self._environment.now = now
        text = self._bounded(meter, lambda: self._template.render(messages=list(messages), **values))
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise TemplateError(
                f"{self._where} writes half a character (a lone surrogate), which no tokenizer takes; name another "
                "template with --template"
            ) from None
        return text

    def _bounded(self, meter: Meter, work: Callable[[], T]) -> T:
        with self._lock:
            self._environment.meter = meter
            try:
                return work()
            except SpentError as error:
                raise TemplateError(f"{self._where} {error}; name another template with --template") from None
            except RecursionError:
                raise TemplateError(
                    f"{self._where} calls itself or nests its parts deeper than {sys.getrecursionlimit():,} calls of "
                    "Python, which is its limit; name another template with --template"
                ) from None
            except Exception as error:  # whatever a template raises: it is somebody's program
                said = (str(error) or type(error).__name__)[:MAX_ERROR_CHARACTERS]
                raise TemplateError(f"the tokenizer's chat template refuses these messages: {said}") from error


@functools.lru_cache(maxsize=MAX_CACHED_TEMPLATES)
def compiled(source: str, name: str) -> ChatTemplate:
    """The compiled template, kept for the next time.

    Raises:
        TemplateError: as `ChatTemplate`.
    """
    return ChatTemplate(source, name)


class _Environment(ImmutableSandboxedEnvironment):
    """The environment that transformers gives to chat templates, with a meter."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.meter, self.now = Meter(), datetime.min
        self.filters["tojson"] = _to_json
        self.filters = {
            name: self._paid(name, cast(Callable[..., Any], run))
            for name, run in self.filters.items()
            if name not in LEFT_OUT
        }
        self.tests = {name: self._paid(name, cast(Callable[..., Any], run)) for name, run in self.tests.items()}
        self.filters |= {STEP: self._step, TEXT: self._text, WRITE: self._write, LOOK: self._look, KEEP: self._keep}
        del self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _raise,
            "strftime_now": self._strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def _paid(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test that pays before it runs. (`wraps` keeps what Jinja has noted on it.)"""
        skip = 1 if hasattr(run, "jinja_pass_arg") else 0

        def paid(*args: Any, **kwargs: Any) -> Any:
            given, meter = args[skip:], self.meter
            given = meter.before_filter(name, given, kwargs)
            return meter.result(run(*args[:skip], *given, **kwargs))

        return functools.wraps(run)(paid)

    def _strftime_now(self, format: str) -> str:
        self.meter.expect(MAX_DATE_GROWTH * len(format))
        return self.now.strftime(format)

    @jinja2.pass_context  # or it would be folded away where its argument is a constant
    def _step(self, _: Context, number: int) -> bool:
        self.meter.step(number)
        return True

    @jinja2.pass_context
    def _text(self, _: Context, size: int) -> bool:
        self.meter.step()
        self.meter.make(size)
        return True

    @jinja2.pass_context
    def _write(self, _: Context, value: Any) -> Any:
        self.meter.make(len(value) if type(value) is str else self.meter.size(value))
        return value

    @jinja2.pass_context
    def _look(self, _: Context, value: Any) -> Any:
        self.meter.look(value)
        return value

    @jinja2.pass_context
    def _keep(self, _: Context, value: Any) -> Any:
        return self.meter.result(value)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        if (number := _num_nodes(template)) > MAX_TEMPLATE_NODES:
            raise SpentError(f"has {number:,} parts (names, operators, texts), and {MAX_TEMPLATE_NODES:,} is its limit")
        template = cast(nodes.Template, _Priced().visit(template))
        template.set_environment(self)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator between two values, paid before."""
        del context
        self.meter.before_operator(operator, left, right)
        return self.binop_table[operator](left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may see it; not the one method that takes the square of a text's length."""
        return attr != "striptags" and super().is_safe_attribute(obj, attr, value)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item; a key that is a tuple is hashed whole."""
        if type(argument) is tuple:
            self.meter.look(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` in the sandbox, paid before."""
        run = super().wrap_str_format(value)
        if run is None:
            return None

        def paid(*args: Any, **kwargs: Any) -> str:
            self.meter.before_format(value.__self__, [*args, *kwargs.values()])
            return run(*args, **kwargs)

        return paid

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, paid before; for its result after."""
        meter = __self.meter
        args = meter.before_call(__obj, args, kwargs)
        return meter.result(super().call(__context, __obj, *args, **kwargs))


class _Priced(NodeTransformer):
    """Puts into a template the calls by which it pays."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Each turn of a loop costs as many steps as its body has nodes; so does each item that its test leaves out."""
        cost, cost_of_test = _num_nodes(node), 1 + (_num_nodes(node.test) if node.test is not None else 0)
        self.generic_visit(node)
        node.body = [_pay(cost), *node.body]
        if node.test is not None:
            node.test = nodes.And(_filter(nodes.Const(cost_of_test), STEP), node.test)
        return node

    def _with_body(self, node: Any) -> nodes.Node:
        cost = _num_nodes(node)
        self.generic_visit(node)
        node.body = [_pay(cost), *node.body]
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = _with_body

    def visit_Output(self, node: nodes.Output) -> nodes.Node | list[nodes.Node]:
        """What is written is paid by its length."""
        self.generic_visit(node)
        size = sum(
            len(child.data) if isinstance(child, nodes.TemplateData) else len(str(child.value))
            for child in node.nodes
            if isinstance(child, nodes.TemplateData | nodes.Const)
        )
        node.nodes = [
            child if isinstance(child, nodes.TemplateData | nodes.Const) else _filter(child, WRITE)
            for child in node.nodes
        ]
        return [_pay(size, TEXT), node]

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """`~`: each part is paid by its length."""
        self.generic_visit(node)
        node.nodes = [child if isinstance(child, nodes.Const) else _filter(child, WRITE) for child in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Comparing costs what the values are long, unless one of them is a constant."""
        self.generic_visit(node)
        for operand in node.ops:
            if operand.op in ("in", "notin") or not any(isinstance(x, nodes.Const) for x in (node.expr, operand.expr)):
                operand.expr = _filter(operand.expr, LOOK)
        if not isinstance(node.expr, nodes.Const):
            is_searched = any(operand.op in ("in", "notin") for operand in node.ops)
            node.expr = _filter(node.expr, LOOK) if is_searched else node.expr
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """A slice is a new value."""
        self.generic_visit(node)
        return _filter(node, KEEP) if isinstance(node.arg, nodes.Slice) else node

    def _literal(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        is_target = getattr(node, "ctx", "load") != "load"
        is_constant = all(isinstance(item, nodes.Const) for item in getattr(node, "items", ()))
        return node if is_target or is_constant else _filter(node, KEEP)

    visit_List = visit_Tuple = visit_Dict = _literal


def _filter(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=getattr(node, "lineno", 1))


def _pay(number: int, what: str = STEP) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filter(nodes.Const(number), what), lineno=1)


def _num_nodes(node: nodes.Node) -> int:
    return 1 + sum(map(_num_nodes, node.iter_child_nodes()))


class _Dict:
    """`dict` without what belongs to its class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """A dictionary of these keys."""
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """A namespace that shows nothing of its values: they change, so that a list that holds it would have no length."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # the signature of Jinja's: a value may be called `self`
        self, *given = args
        values = dict(*given, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace takes no name that begins with _: {name!r}")


class _Generation(Extension):
    """`{% generation %}`: marks what the model writes; the text is the same with and without."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.CallBlock:
        """The block as a call that gives back its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return cast(nodes.CallBlock, nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line))

    def _written(self, caller: Callable[[], str]) -> str:
        return caller()


def _to_json(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)
