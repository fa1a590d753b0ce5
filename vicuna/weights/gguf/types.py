"""How GGUF stores numbers: the block types, and llama.cpp's recipe of which tensor gets which.

A block is some consecutive numbers of a row stored together with their scale. The recipe is that of llama.cpp's
quantize program (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp): files of one type name then
hold the same bytes whoever made them. `quantize` converts numbers to blocks, `container` reads and writes the files.
"""

import enum
import functools
from dataclasses import dataclass
from typing import Literal, get_args


class GGMLType(enum.Enum):
    """A block type: its number in the file, how many numbers a block holds, how many bytes it takes."""

    F32 = (0, 1, 4)
    F16 = (1, 1, 2)
    Q4_0 = (2, 32, 18)
    Q4_1 = (3, 32, 20)
    Q5_0 = (6, 32, 22)
    Q5_1 = (7, 32, 24)
    Q8_0 = (8, 32, 34)
    Q2_K = (10, 256, 84)
    Q3_K = (11, 256, 110)
    Q4_K = (12, 256, 144)
    Q5_K = (13, 256, 176)
    Q6_K = (14, 256, 210)
    IQ2_XXS = (16, 256, 66)
    IQ2_XS = (17, 256, 74)
    IQ3_XXS = (18, 256, 98)
    IQ1_S = (19, 256, 50)
    IQ4_NL = (20, 32, 18)
    IQ3_S = (21, 256, 110)
    IQ2_S = (22, 256, 82)
    IQ4_XS = (23, 256, 136)
    IQ1_M = (29, 256, 56)
    BF16 = (30, 1, 2)
    TQ1_0 = (34, 256, 54)
    TQ2_0 = (35, 256, 66)
    MXFP4 = (39, 32, 17)

    def __init__(self, number: int, block_size: int, block_bytes: int) -> None:
        self.number, self.block_size, self.block_bytes = number, block_size, block_bytes

    @property
    def is_quantized(self) -> bool:
        return self.block_size > 1

    @staticmethod
    @functools.cache
    def by_number() -> dict[int, "GGMLType"]:
        return {kind.number: kind for kind in GGMLType}


TypeName = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k"]


@dataclass(frozen=True)
class FileType:
    """A type of whole files, by the name that `--type` takes.

    Attributes:
        number: `general.file_type` (llama_ftype in llama.h).
        default: the type of most of its tensors.
    """

    name: str
    number: int
    default: GGMLType


FILE_TYPES = {
    kind.name: kind
    for kind in (
        FileType("f32", 0, GGMLType.F32),
        FileType("f16", 1, GGMLType.F16),
        FileType("bf16", 32, GGMLType.BF16),
        FileType("q8_0", 7, GGMLType.Q8_0),
        FileType("q4_0", 2, GGMLType.Q4_0),
        FileType("q4_k_m", 15, GGMLType.Q4_K),
        FileType("q5_k_m", 17, GGMLType.Q5_K),
        FileType("q6_k", 18, GGMLType.Q6_K),
    )
}
assert list(FILE_TYPES) == list(get_args(TypeName))

# Where a row is no multiple of 256: the type of the same size, or the next larger one, with blocks of 32.
SMALLER_BLOCKS = {GGMLType.Q4_K: GGMLType.Q5_0, GGMLType.Q5_K: GGMLType.Q5_1, GGMLType.Q6_K: GGMLType.Q8_0}


@dataclass(frozen=True)
class ModelShape:
    """What of a model the recipe depends on.

    Attributes:
        is_tied: whether the output shares the embedding's tensor.
        shares_values_eightfold: whether eight query heads share one v (80 layers, 70B), so that v gets more bits.
    """

    num_layers: int
    is_tied: bool
    shares_values_eightfold: bool = False


def tensor_type(file_type: FileType, name: str, shape: tuple[int, ...], model: ModelShape) -> GGMLType:
    """The type that llama.cpp gives a tensor in a file of this type.

    Args:
        name: its GGUF name.
        shape: rows first.
    """
    if len(shape) < 2 or not name.endswith(".weight") or name.endswith("_norm.weight"):
        return GGMLType.F32
    wanted = file_type.default
    if wanted.is_quantized:
        wanted = _mixture_type(file_type, name, model)
    return _type_with_fitting_blocks(wanted, shape[-1])


def _mixture_type(file_type: FileType, name: str, model: ModelShape) -> GGMLType:
    default = file_type.default
    if name == "output.weight" or (model.is_tied and name == "token_embd.weight"):
        return GGMLType.Q8_0 if default == GGMLType.Q8_0 else GGMLType.Q6_K
    if not name.startswith("blk."):
        return default
    _, layer, part, _ = name.split(".")
    if part in ("attn_v", "ffn_down") and file_type.name in ("q4_k_m", "q5_k_m"):
        if _gets_more_bits(int(layer), model.num_layers):
            return GGMLType.Q6_K
        if part == "attn_v" and default == GGMLType.Q4_K and model.shares_values_eightfold:
            return GGMLType.Q5_K
    return default


def _gets_more_bits(layer: int, num_layers: int) -> bool:
    """The first and last eighth of the layers, and every third between them get more bits."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _type_with_fitting_blocks(wanted: GGMLType, columns: int) -> GGMLType:
    """The type itself where its blocks divide the row, else the nearest that does."""
    for kind in (wanted, SMALLER_BLOCKS.get(wanted, wanted)):
        if columns % kind.block_size == 0:
            return kind
    return GGMLType.F16
