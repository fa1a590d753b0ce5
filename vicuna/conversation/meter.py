"""What a chat template may spend, and what each thing in it costs.

Two counts: steps, for time, and characters made, for memory. Both follow from the number and length of the messages.
A value costs by its size, which is the length of its text; the size of a list is kept, because nothing in the sandbox
changes a list, so that lists of lists of the same list are not walked through again and again.

After: `sandbox`, which calls this before each loop's turn, operator, filter and call of a template.
"""

import re
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any, TypeVar

MAX_STEPS, STEPS_PER_MESSAGE, STEPS_PER_CHARACTER = 2_000_000, 5_000, 32
"""What all renderings of one conversation may take: so many steps, and so many more for what each of them is given."""
MAX_CHARACTERS, CHARACTERS_PER_MESSAGE, CHARACTERS_PER_CHARACTER = 4_000_000, 10_000, 64
"""What one rendering may make: so many characters, and so many more for what it is given."""
STEPS_PER_CALL, STEPS_PER_FILTER = 40, 8  # Python takes so much longer for these than for a node of a loop's body
MAX_INTEGER_BITS = 4096
MAX_DEPTH = 100
"""Of lists in lists: Python's own functions go down into them on the stack."""
MAX_ATTRIBUTE_PARTS = 16
"""Of `map(attribute='a.b.c')`, which is looked up for each item."""
CHARACTERS_A_STEP = 16
COSTLY, COSTLY_TIMES = ("wordcount", "title", "capitalize", "truncate"), 16  # regular expressions, a call for each word
CONSTANT = ("length", "count", "first", "last", "default", "d", "string", "defined", "undefined", "none", "mapping")
LAZY = ("map", "select", "selectattr", "reject", "rejectattr", "items", "list")  # cost an item, not its size
SORTING = ("sort", "dictsort", "unique", "groupby", "max", "min")
ATTRIBUTED = (*LAZY, *SORTING, "sum", "attr")
SORT_COST = 20  # comparisons of each item, at most, among a million
MAX_PRECISION = 300  # digits behind the point
OPAQUE_SIZE = 40  # of what shows nothing of its contents: functions, generators, namespaces
NUMBER = re.compile(r"\d+")
NESTED_FIELD = re.compile(r":[^{}]*\{")
T = TypeVar("T")


class SpentError(Exception):
    """A template would spend more than it may; the message goes on from its name."""


class Meter:
    """What the renderings of one conversation have left; before `begin`, what compiling a template has."""

    def __init__(self) -> None:
        self.max_steps = self.steps = MAX_STEPS
        self.max_characters = self.characters = MAX_CHARACTERS
        self.num_messages = 0
        self._sizes: dict[
            int, tuple[Any, int, int]
        ] = {}  # by id: the value (so that the id stays its own), size, depth

    def begin(self, num_messages: int, num_characters: int) -> None:
        """Begin the rendering of so many messages, with so many characters in them."""
        more = STEPS_PER_MESSAGE * num_messages + STEPS_PER_CHARACTER * num_characters
        self.max_steps, self.steps = self.max_steps + more, self.steps + more
        more = CHARACTERS_PER_MESSAGE * num_messages + CHARACTERS_PER_CHARACTER * num_characters
        self.max_characters = self.characters = MAX_CHARACTERS + more
        self.num_messages = num_messages
        self._sizes = {}

    def step(self, number: int = 1) -> None:
        """Pay steps."""
        self.steps -= number
        if self.steps < 0:
            raise SpentError(
                f"takes more than {self.max_steps:,} steps for {self.num_messages:,} messages, which is its limit"
            )

    def make(self, size: int) -> None:
        """Pay for a text of this length."""
        if size > self.characters:
            self.expect(size)
        self.characters -= size
        self.steps -= size // CHARACTERS_A_STEP
        if self.steps < 0:
            self.step()

    def expect(self, size: int) -> None:
        """Refuse what would be longer than what is left."""
        if size > self.characters:
            raise SpentError(
                f"makes more than {self.max_characters:,} characters for {self.num_messages:,} messages, "
                "which is its limit"
            )

    def look(self, *values: Any) -> None:
        """Pay for values that are read through."""
        self.step(1 + sum(map(self.size, values)) // CHARACTERS_A_STEP)

    def size(self, value: Any) -> int:
        """The length of a value's text, about."""
        kind = type(value)
        if kind is str:
            return len(value)
        if kind is int:
            return 1 + int(value.bit_length() * 0.302)
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, list | tuple | dict | KeysView | ValuesView | ItemsView | range):
            return self._measure(value)[0]
        return OPAQUE_SIZE

    def _measure(self, value: Any) -> tuple[int, int]:
        """Size and depth of a list or mapping."""
        if isinstance(value, range):
            return 8 * len(value), 1
        if known := self._sizes.get(id(value)):
            return known[1:]
        self.step(len(value))
        size, depth = 2, 0
        for item in _items(value):
            if isinstance(item, list | tuple | dict):
                item_size, item_depth = self._measure(item)
                depth = max(depth, item_depth)
            else:
                item_size = self.size(item)
            size += item_size + 4
        if isinstance(value, list | tuple | dict):
            self._sizes[id(value)] = value, size, depth + 1
        if depth >= MAX_DEPTH:
            raise SpentError(f"nests lists deeper than {MAX_DEPTH:,}, which is its limit")
        self.expect(size)
        return size, depth + 1

    def result(self, value: T) -> T:
        """Pay for a new value."""
        if isinstance(value, str | bytes):
            self.make(len(value))
        elif isinstance(value, list | tuple | dict) and id(value) not in self._sizes:
            self._measure(value)
            self.make(8 * len(value))
        elif isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise SpentError(f"makes a number of more than {MAX_INTEGER_BITS:,} bits, which is its limit")
        return value

    def before_operator(self, operator: str, left: Any, right: Any) -> None:
        """Pay for `left operator right`."""
        self.step()
        if operator == "+" and type(left) is str and type(right) is str:
            self.make(len(left) + len(right))
            return
        if isinstance(left, int | float) and isinstance(right, int | float):
            bits = left.bit_length() if isinstance(left, int) else 0
            if isinstance(right, int) and operator in ("*", "**"):
                bits = bits * max(0, right) if operator == "**" else bits + right.bit_length()
                if bits > MAX_INTEGER_BITS:
                    raise SpentError(f"makes a number of more than {MAX_INTEGER_BITS:,} bits, which is its limit")
        elif operator == "%" and isinstance(left, str | bytes):
            self._before_printf(left, right)
        elif operator == "*":
            times, value = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(times, int) and isinstance(value, str | bytes | list | tuple):
                self.make(max(0, times) * (len(value) if isinstance(value, str | bytes) else self.size(value)))
        elif operator == "+" and isinstance(left, str | bytes | list | tuple):
            if isinstance(left, str | bytes):
                self.make(len(left) + self.size(right))
            elif isinstance(right, list | tuple):
                self.make(8 * (len(left) + len(right)))

    def _before_printf(self, text: str | bytes, values: Any) -> None:
        given = text if isinstance(text, str) else text.decode("latin-1")
        width = max((int(number[:12]) for number in NUMBER.findall(given)), default=0)
        if "*" in given:
            width = max([width, *(abs(value) for value in _flat(values) if isinstance(value, int))])
        self.make(len(given) + given.count("%") * (width + self.size(values)))

    def before_format(self, text: str, values: Sequence[Any]) -> None:
        """Pay for `text.format(*values)`."""
        width = max((int(number[:12]) for number in NUMBER.findall(text)), default=0)
        if NESTED_FIELD.search(text):
            width = max([width, *(abs(value) for value in _flat(values) if isinstance(value, int))])
        self.make(len(text) + text.count("{") * (width + sum(map(self.size, values))))

    def before_filter(self, name: str, values: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
        """Pay for a filter or test, and give back what it is to be given: the same, a generator as a list."""
        self.step(STEPS_PER_FILTER)
        if name in CONSTANT:
            return values
        if len(values) == 1 and type(values[0]) is str and not options and name not in ("int", *COSTLY):
            self.step(1 + len(values[0]) // CHARACTERS_A_STEP)
            return values
        for value in (*values[1:], *options.values()):
            if name in ATTRIBUTED and isinstance(value, str) and value.count(".") >= MAX_ATTRIBUTE_PARTS:
                raise SpentError(f"looks for an attribute of more than {MAX_ATTRIBUTE_PARTS} parts, which is its limit")
        if name in LAZY:
            self.step(1 + (len(values[0]) if values and hasattr(values[0], "__len__") else 0))
            return values
        if name in ("join", "sum", *SORTING) and values and isinstance(values[0], Iterator):
            values = (list(values[0]), *values[1:])
        sizes = [self.size(value) for value in (*values, *options.values())]
        total = sum(sizes)
        self.step(
            1 + total * (SORT_COST if name in SORTING else COSTLY_TIMES if name in COSTLY else 1) // CHARACTERS_A_STEP
        )
        numbers = [abs(value) for value in (*values[1:], *options.values()) if isinstance(value, int)]
        most = max(numbers, default=0)
        others = total - sizes[0] if sizes else 0
        if name == "join":
            self.expect(sizes[0] + len(values[0]) * others if hasattr(values[0], "__len__") else total)
        elif name == "replace":
            names = {**dict(zip(("text", "old", "new"), values, strict=False)), **options}
            self.expect(self._replaced(str(values[0]), str(names.get("old", "")), str(names.get("new", ""))))
        elif name == "indent":
            self.expect(total + (str(values[0]).count("\n") + 1) * (most + others))
        elif name in ("center", "batch", "slice", "truncate"):
            self.expect(total + 8 * most)
        elif name == "format":
            self._before_printf(str(values[0]), (*values[1:], *options.values()))
        elif name == "tojson":
            depth = self._measure(values[0])[1] if isinstance(values[0], list | tuple | dict) else 1
            self.expect(sizes[0] * (1 + (most + others) * depth) if others else sizes[0])
        elif name == "round" and most > MAX_PRECISION:
            raise SpentError(f"rounds to more than {MAX_PRECISION} digits, which is its limit")
        elif name in ("int", "float") and isinstance(values[0], str):
            self.step(len(values[0]) ** 2 // 1000)
        elif name == "sum":
            self.step(total * len(values[0]) // 1000 if others > OPAQUE_SIZE or options.get("start") else 0)
        return values

    def before_call(self, function: Any, values: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, ...]:
        """Pay for a call: of a method of a text, number or list by its work, of anything else a step.

        Returns:
            What is to be given: the same values, generators as lists.
        """
        self.step(STEPS_PER_CALL + len(values) + 4 * len(options))
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if not isinstance(owner, str | bytes | int | float | list | tuple | range):
            self.step(sum(map(self.size, (*values, *options.values()))) // CHARACTERS_A_STEP)
            return values
        values = tuple(list(value) if isinstance(value, Iterator) else value for value in values)
        given = (*values, *options.values())
        total = self.size(owner) + sum(map(self.size, given))
        self.step(total // CHARACTERS_A_STEP)
        most = max((abs(value) for value in given if isinstance(value, int)), default=0)
        if name == "join" and values:
            length = len(values[0]) if hasattr(values[0], "__len__") else 0
            self.expect(length * self.size(owner) + self.size(values[0]))
        elif name == "replace" and len(values) > 1 and isinstance(owner, str):
            self.expect(self._replaced(owner, str(values[0]), str(values[1])))
        elif name == "expandtabs":
            self.expect(total + self.size(owner) * (most or 8))
        elif name in ("encode", "decode") and given:  # some encodings take the square
            self.step(self.size(owner) ** 2 // 1000)
        elif name == "translate":
            self.expect(total + self.size(owner) * total)
        elif name in ("rfind", "rindex", "rsplit", "rpartition"):
            sought = max((len(value) for value in given if isinstance(value, str | bytes)), default=0)
            self.step(self.size(owner) * sought // 1000)
        elif name in ("center", "ljust", "rjust", "zfill", "to_bytes", "hex"):
            self.expect(2 * total + most)
        return values

    def _replaced(self, text: str, old: str, new: str) -> int:
        return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield item
    else:
        yield from value


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
    elif isinstance(values, dict):
        yield from _flat(list(values.values()))
    else:
        yield values
