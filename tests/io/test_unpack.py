"""Packed files are unpacked whole, in little memory, and not beyond what text is worth."""

import ast
import gzip
import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from vicuna.io import unpack
from vicuna.io.unpack import UnpackError, reader_of

Pack = Callable[[bytes], bytes]
TEXT = " ".join(random.Random(1).choices(["alpha", "beta", "gamma", "delta", "\n"], k=300_000)).encode()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


packers = pytest.mark.parametrize("pack", [gzip.compress, zstd])


def unpacked(data: bytes, size: int = 100_000) -> bytes:
    read = reader_of(io.BytesIO(data))
    pieces = []
    while piece := read(size):
        assert len(piece) <= size
        pieces.append(piece)
    assert read(size) == b""
    return b"".join(pieces)


@packers
@pytest.mark.parametrize("text", [b"", b"a", TEXT], ids=["empty", "letter", "text"])
def test_what_was_packed_comes_out(pack: Pack, text: bytes) -> None:
    assert unpacked(pack(text)) == text
    assert unpacked(pack(text) + pack(b"more")) == text + b"more", "several members or frames"


def test_what_is_not_packed_is_read_as_it_is() -> None:
    for text in (b"", b"\x1f", b"[1, 2]", TEXT):
        assert unpacked(text) == text


@packers
def test_damage_is_told(pack: Pack) -> None:
    packed = pack(TEXT)
    spoiled = bytearray(packed)
    spoiled[len(packed) // 2] ^= 0xFF
    for damaged in (packed[:-5], packed[: len(packed) // 2], bytes(spoiled), packed + b"\x1f\x8b\x08"):
        with pytest.raises(UnpackError):
            unpacked(damaged)


@pytest.mark.parametrize("level", [1, 3, 19])
def test_a_bomb_takes_little_memory_and_is_left(level: int) -> None:
    out = io.BytesIO()
    with zstandard.ZstdCompressor(level=level).stream_writer(out, closefd=False) as writer:
        for _ in range(300):
            writer.write(b" " * (1 << 20))
    with gzip.GzipFile(fileobj=(other := io.BytesIO()), mode="wb") as packed:
        for _ in range(300):
            packed.write(b" " * (1 << 20))
    for bomb in (out.getvalue(), other.getvalue()):
        read = reader_of(io.BytesIO(bomb))
        tracemalloc.start()
        with pytest.raises(UnpackError, match="unpacks to more than 1,000 times its size"):
            while read(1 << 20):
                pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 80 << 20
        assert len(bomb) < 1 << 20


def test_a_small_file_may_be_packed_as_well_as_it_can() -> None:
    text = b"a" * (unpack.FREE_BYTES - 1)
    assert unpacked(zstd(text), 1 << 20) == text


def test_nothing_else_unpacks() -> None:
    """But frames of a delta, whose size is named before; a judge's replies, counted as they come; one wheel, known by
    its hash; and PyTorch's archives, whose files are not packed."""
    package = Path(unpack.__file__).parents[1]
    known = {"io/unpack.py", "weights/delta/codec.py", "weights/delta/additive.py", "eval/ask/wire.py"}
    known |= {"weights/small_model.py", "weights/files/pickled.py"}
    for path in package.rglob("*.py"):
        if (name := str(path.relative_to(package))) in known:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            packers = {"gzip", "zlib", "bz2", "lzma", "zipfile", "tarfile", "zstandard", "shutil.unpack_archive"}
            assert not packers & set(names), f"{name}: use vicuna.io.unpack"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("decompressobj", "ZstdDecompressor", "unpack_archive"), name
