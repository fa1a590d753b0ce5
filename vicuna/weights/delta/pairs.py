"""Which tensor of the base a tensor of the target is stored as a difference to, and the base's numbers for it.

Used by `makers`, `restore` and `published`. The rules:

- The base's tensor is the one of the same name and shape. Both must be floating point (F16, BF16, F32); if their dtypes
  differ, the base's numbers are cast to the target's dtype first (`numbers.cast`).
- A vocabulary may have grown or shrunk: embeddings and heads may differ in their number of rows. Rows that the base
  lacks count as zeros; rows that only the base has are not used.
- A head that the base does not store, because it is tied to the embedding, is the base's embedding.
- Every other tensor of the target has no base and is stored whole. Tensors that only the base has are not needed.
"""

import math

from vicuna.weights.files.checkpoint import CheckpointReader
from vicuna.weights.files.numbers import cast
from vicuna.weights.files.tensors import ELEMENT_BYTES, FLOATS, Tensor

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
VOCABULARY = (HEAD, EMBEDDING)


def find_base(tensor: Tensor, reader: CheckpointReader) -> Tensor | None:
    """The base's tensor that `tensor` is stored as a difference to, or None."""
    base = reader.tensors.get(tensor.name)
    if base is None and tensor.name == HEAD:
        base = reader.tensors.get(EMBEDDING)
    return base if base is not None and can_be_base(tensor, base) else None


def can_be_base(tensor: Tensor, base: Tensor) -> bool:
    """Can one be stored as a difference to the other?"""
    if tensor.dtype not in FLOATS or base.dtype not in FLOATS:
        return False
    may_have_other_rows = tensor.name in VOCABULARY and len(tensor.shape) == len(base.shape) == 2
    return tensor.shape == base.shape or (may_have_other_rows and tensor.shape[1:] == base.shape[1:])


def read_base(reader: CheckpointReader, base: Tensor, tensor: Tensor, start: int, size: int) -> bytes:
    """The base's bytes for bytes `start` to `start + size` of the target's tensor; fewer where the base lacks rows."""
    width, base_width = ELEMENT_BYTES[tensor.dtype], ELEMENT_BYTES[base.dtype]
    first = min(start // width, math.prod(base.shape))
    return reader.read(base.name, first * base_width, size // width * base_width)


def cast_base(data: bytes, base: Tensor, tensor: Tensor, size: int) -> bytes:
    """The base's numbers in the target's dtype, with zeros for those that it lacks: `size` bytes."""
    return cast(data, base.dtype, tensor.dtype).ljust(size, b"\0")
