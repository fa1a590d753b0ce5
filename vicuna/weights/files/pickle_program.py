"""A PyTorch state dict's pickle, interpreted without calling anything that it names.

A pickle is a program that builds objects and may call any function, which is how a downloaded model can take over a
machine. So nothing is unpickled here: the instructions are decoded (`pickletools`), and a small stack machine executes
those that a state dict needs, with strings, numbers, tuples, lists, dictionaries and descriptions of tensors as its
only values. Whatever else a program asks for is refused by name. `pickled` reads whole files with it.

Instructions: CPython `Lib/pickletools.py`. What PyTorch writes: `torch/_utils.py`, `_rebuild_tensor_v2` and `_v3`;
`torch/serialization.py`, `persistent_id`.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "UntypedStorage": "U8",
}  # fmt: skip
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
MAX_DIMENSIONS, MAX_NUMBER = 64, 2**63 - 1


class RefusedError(Exception):
    """The program asks for more than a state dict needs. The message continues a sentence that begins with the file."""


@dataclass(frozen=True)
class Storage:
    """Consecutive numbers somewhere in the file; `dtype` is the safetensors name."""

    dtype: str
    key: str
    num_elements: int


@dataclass(frozen=True)
class View:
    """A tensor: a view of a storage. `offset` and `strides` count elements, and are not checked against the storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """A function or class by its dotted name. It is never looked up."""

    name: str


class PickleMachine:
    """Executes one pickle program.

    A value can be nested so that its text would fill the memory, so messages show no more of one than its type.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def execute(self, file: IO[bytes]) -> Any:
        """The value that the program builds. The file is left behind the last instruction.

        Raises:
            RefusedError: it asks for more than a state dict needs.
            ValueError, TypeError, IndexError, KeyError, AttributeError: it is no valid pickle.
        """
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name not in _INSTRUCTIONS:
                raise RefusedError(f"uses the pickle instruction {opcode.name}, which no state dict needs")
            _INSTRUCTIONS[opcode.name](self, argument)
        raise ValueError("its program has no end")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _tuple_of(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    def _remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ValueError(f"it appends to a {type(self._stack[-1]).__name__}")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        self._stack[-1].update(_dictionary(zip(items[::2], items[1::2], strict=True)))

    def _push_global(self, attribute: Any, module: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("it names a function by something else than text")
        self._push(_Global(f"{module}.{attribute}"))

    def _build(self, _: Any) -> None:
        self._stack.pop()  # the versions of the model's modules, beside a state dict
        if not isinstance(self._stack[-1], dict):
            raise RefusedError(f"sets the insides of a {type(self._stack[-1]).__name__}, which no state dict needs")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if function.name not in _FUNCTIONS:
            raise RefusedError(f"asks to call {function.name}, which no state dict needs; nothing was run")
        self._push(_FUNCTIONS[function.name](arguments))

    def _storage(self, _: Any) -> None:
        kind, storage_type, key, _device, num_elements, *view = self._stack.pop()
        module, _dot, name = storage_type.name.rpartition(".")
        if module not in ("torch", "torch.storage") or name not in STORAGES or kind != "storage" or any(view):
            raise RefusedError(f"names a storage of type {storage_type.name}, which is not known")
        if not isinstance(key, str) or type(num_elements) is not int or num_elements < 0:
            raise ValueError("a storage without a name and a size")
        self.storages[key] = Storage(STORAGES[name], key, num_elements)
        self._push(self.storages[key])


def _dictionary(items: Any) -> dict[str | int, Any]:
    result: dict[str | int, Any] = {}
    for key, value in items:
        if not isinstance(key, str | int):
            raise ValueError(f"it has a {type(key).__name__} for a key")
        result[key] = value
    return result


def _view(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any) -> View:
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape):,} dimensions, and {MAX_DIMENSIONS} are taken")
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int and 0 <= n <= MAX_NUMBER for n in numbers) or len(shape) != len(strides):
        raise ValueError("a tensor whose shape or strides are no numbers")
    return View(storage, dtype, offset, tuple(shape), tuple(strides))


def _tensor_v3(arguments: Any) -> View:
    storage, offset, shape, strides, _requires_grad, _hooks, dtype, *_ = arguments
    module, _, name = dtype.name.rpartition(".")
    if module != "torch" or name not in DTYPES:
        raise RefusedError(f"holds numbers of type {dtype.name}, which is not known")
    return _view(storage, DTYPES[name], offset, shape, strides)


# The functions that a state dict calls: their result from their arguments.
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "collections.OrderedDict": lambda arguments: _dictionary(*arguments) if arguments else {},
    "torch.Size": lambda arguments: tuple(*arguments),
    "torch._utils._rebuild_parameter": lambda arguments: arguments[0],
    "torch._utils._rebuild_tensor_v2": lambda arguments: _view(arguments[0], arguments[0].dtype, *arguments[1:4]),
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
}

_LITERALS = (
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING",
)  # fmt: skip
_INSTRUCTIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    **dict.fromkeys(_LITERALS, PickleMachine._push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda _machine, _: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), PickleMachine._remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine._push(machine._memo[index])),
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._to_mark())),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "MARK": PickleMachine._mark,
    "APPEND": lambda machine, _: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._to_mark()),
    "SETITEM": lambda machine, _: machine._set([machine._stack.pop(), machine._stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set(machine._to_mark()),
    "GLOBAL": lambda machine, text: machine._push_global(*reversed(text.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine._push_global(machine._stack.pop(), machine._stack.pop()),
    "BINPERSID": PickleMachine._storage,
    "REDUCE": PickleMachine._reduce,
    "BUILD": PickleMachine._build,
}
