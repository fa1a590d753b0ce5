"""Base + delta = target, bit for bit, or one line that says what is wrong."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.builders import SHAPES, numbers, random_bits, tuned, write_model, write_raw
from vicuna.apply_delta import main as apply_main
from vicuna.errors import UsageError, VerificationError, VicunaError
from vicuna.make_delta import main as make_main
from vicuna.weights.__main__ import main as weights_main
from vicuna.weights.delta.apply import apply_delta
from vicuna.weights.delta.codec import decode_frame, encode_frame
from vicuna.weights.delta.layout import read_delta
from vicuna.weights.delta.make import Format, make_delta
from vicuna.weights.files.manifest import SUMS_NAME, WEIGHTS_NAME
from vicuna.weights.files.numbers import cast
from vicuna.weights.files.tensors import FLOATS


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base", numbers(0))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_model(tmp_path / "target", tuned(numbers(0)))


@pytest.fixture
def delta(tmp_path: Path, base: Path, target: Path) -> Path:
    make_delta(base, target, tmp_path / "delta")
    return tmp_path / "delta"


def files_of(folder: Path, *, without: str = "vicuna_manifest.json") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != without}


@pytest.mark.parametrize("dtype", FLOATS)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_a_frame_of_any_bit_patterns_comes_back(dtype: str, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    base, target = random_bits(random, dtype, count), random_bits(random, dtype, count)
    for given_base in (base, None, target):
        kind, payload = encode_frame(target, given_base, dtype)
        assert decode_frame(kind, payload, given_base, dtype, len(target)) == target


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_damaged_frame_is_an_error_or_other_numbers(dtype: str) -> None:
    """Never another exception, whatever the bytes are: frames are decoded before their hash is known."""
    random = np.random.default_rng(9)
    base = random.normal(0, 0.02, 1000).astype("<f4")
    target = cast((base + random.normal(0, 1e-5, 1000).astype("<f4")).tobytes(), "F32", dtype)
    kind, payload = encode_frame(target, base_data := cast(base.tobytes(), "F32", dtype), dtype)
    for _ in range(300):
        bad = bytearray(payload)
        for place in random.integers(0, min(len(bad), 30), 2):
            bad[place] ^= int(random.integers(0, 256))
        with contextlib.suppress(ValueError):
            decoded = decode_frame(kind, bytes(bad[: random.integers(0, 2 * len(bad))]), base_data, dtype, len(target))
            assert len(decoded) == len(target)


def test_neighbouring_numbers_have_small_differences() -> None:
    """A last-bit change costs next to nothing, also across zero."""
    base = np.zeros(10_000, "<f2")
    target = np.resize(np.array([-5.96e-08, 0.0, 5.96e-08], "<f2"), 10_000)
    _, payload = encode_frame(target.tobytes(), base.tobytes(), "F16")
    assert len(payload) < 200


@pytest.mark.parametrize(("source", "target"), [("F32", "F16"), ("F32", "BF16"), ("F16", "F32"), ("BF16", "F16")])
def test_cast_is_torchs(source: str, target: str) -> None:
    torch = pytest.importorskip("torch")
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    data = random_bits(np.random.default_rng(3), source, 2000)
    expected = torch.frombuffer(bytearray(data), dtype=kinds[source]).to(kinds[target])
    ours = torch.frombuffer(bytearray(cast(data, source, target)), dtype=kinds[target])
    assert torch.equal(ours.isnan(), expected.isnan())
    assert torch.equal(ours[~ours.isnan()], expected[~expected.isnan()])


@pytest.mark.parametrize("format", ["exact", "additive"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shard_bytes", [1 << 30, 600])
def test_the_target_comes_back_byte_for_byte(tmp_path: Path, dtype: str, shard_bytes: int, format: Format) -> None:
    base = write_model(tmp_path / "base", numbers(0), dtype)
    target = write_model(tmp_path / "target", tuned(numbers(0)), dtype, shard_bytes)
    make_delta(base, target, tmp_path / "delta", format=format)
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(target)


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_dtypes_shards_and_shapes_may_differ(tmp_path: Path, format: Format) -> None:
    """An fp32 base in shards; a bf16 target with more rows, an integer tensor, and one tensor less."""
    base = write_model(tmp_path / "base", numbers(0), "F32", shard_bytes=600)
    weights = tuned(numbers(0))
    del weights["lm_head.weight"]
    weights["model.embed_tokens.weight"] = np.vstack([weights["model.embed_tokens.weight"], np.ones((2, 16), "<f4")])
    raw = {
        name: ("BF16", value.shape, (value.view("<u4") >> 16).astype("<u2").tobytes())
        for name, value in weights.items()
    }
    raw["steps"] = ("I64", (), (7).to_bytes(8, "little"))
    raw["empty"] = ("F16", (0, 4), b"")
    target = write_raw(tmp_path / "target", raw)
    summary = make_delta(base, target, tmp_path / "delta", format=format)
    assert summary.num_whole == 2  # the integers, and the empty one that the base has not
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(target)


def test_a_large_tensor_spans_frames(tmp_path: Path) -> None:
    shapes = {"model.big.weight": (1500, 1500), "model.norm.weight": (16,)}
    base = write_model(tmp_path / "base", numbers(0, shapes), "F32")
    target = write_model(tmp_path / "target", tuned(numbers(0, shapes)), "F32")
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(target)


def test_a_fine_tune_makes_a_small_delta(tmp_path: Path) -> None:
    shapes = {"model.w.weight": (512, 512), "model.norm.weight": (16,)}
    base = write_model(tmp_path / "base", numbers(0, shapes))
    target = write_model(tmp_path / "target", {n: v * np.float32(1.0005) for n, v in numbers(0, shapes).items()})
    summary = make_delta(base, target, tmp_path / "delta")
    assert summary.delta_bytes < 0.3 * summary.target_bytes


def test_wrong_base_is_refused_by_name(tmp_path: Path, delta: Path) -> None:
    other = numbers(0)
    other["model.layers.0.self_attn.q_proj.weight"] += 1
    wrong = write_model(tmp_path / "wrong", other)
    with pytest.raises(VerificationError, match=r"is not this delta's base: tensor 'model.layers.0.self_attn.q_proj"):
        apply_delta(wrong, delta, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_base_of_another_shape_is_refused_by_name(tmp_path: Path, delta: Path) -> None:
    shapes = {**SHAPES, "lm_head.weight": (32, 16)}
    wrong = write_model(tmp_path / "wrong", numbers(0, shapes))
    with pytest.raises(VerificationError, match=r"needs lm_head.weight F16 \[33, 16\], the base has .*\[32, 16\]"):
        apply_delta(wrong, delta, tmp_path / "again")


def test_applying_twice_says_so(tmp_path: Path, base: Path, delta: Path) -> None:
    apply_delta(base, delta, tmp_path / "again")
    with pytest.raises(VerificationError, match="is already the target of this delta"):
        apply_delta(tmp_path / "again", delta, tmp_path / "twice")


def test_a_model_is_no_delta(tmp_path: Path, base: Path, target: Path) -> None:
    with pytest.raises(VicunaError, match="is a model, not a delta"):
        apply_delta(base, target, tmp_path / "again")


def test_a_delta_is_no_model(tmp_path: Path, base: Path, delta: Path) -> None:
    with pytest.raises(VicunaError, match="is a delta, not a model; make the model first"):
        make_delta(base, delta, tmp_path / "other")


def test_same_folder_twice(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="are the same model"):
        make_delta(base, base, tmp_path / "delta")


def test_a_filled_target_is_left_alone(tmp_path: Path, base: Path, delta: Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "mine").write_text("precious")
    with pytest.raises(VicunaError, match="not empty"):
        apply_delta(base, delta, tmp_path / "again")
    assert (tmp_path / "again" / "mine").read_text() == "precious"


def damaged(folder: Path, random: np.random.Generator) -> Iterator[str]:
    """One byte of one file after the other is wrong, each file by its size; gives the file's name meanwhile."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    while True:
        path = files[random.choice(len(files), p=sizes / sizes.sum())]
        good, place = path.read_bytes(), int(random.integers(0, path.stat().st_size))
        path.write_bytes(good[:place] + bytes([good[place] ^ int(random.integers(1, 256))]) + good[place + 1 :])
        yield path.name
        path.write_bytes(good)


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_every_damaged_byte_of_a_delta_is_found_and_named(
    tmp_path: Path, base: Path, target: Path, format: Format
) -> None:
    """Exit code 3, no model, and the name of the file or of a tensor in it."""
    make_delta(base, target, tmp_path / "delta", format=format)
    for name, _ in zip(damaged(tmp_path / "delta", np.random.default_rng(5)), range(200), strict=False):
        with pytest.raises(
            VerificationError, match=rf"tensor '[a-z_0-9.]+'|{re.escape(name)}|disagree about '[a-z.]+'"
        ):
            apply_delta(base, tmp_path / "delta", tmp_path / "again")
        assert not (tmp_path / "again").exists()
    shutil.rmtree(tmp_path / "delta")


@pytest.mark.parametrize("format", ["exact", "additive"])
def test_every_damaged_number_of_a_base_is_found_and_named(
    tmp_path: Path, base: Path, target: Path, format: Format
) -> None:
    make_delta(base, target, tmp_path / "delta", format=format)
    path, random = base / "model.safetensors", np.random.default_rng(6)
    good = path.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    for place in random.integers(start, len(good), 200):
        path.write_bytes(good[:place] + bytes([good[place] ^ int(random.integers(1, 256))]) + good[place + 1 :])
        with pytest.raises(VerificationError, match=r"base is not this delta's base: tensor '[a-z_0-9.]+' differs"):
            apply_delta(base, tmp_path / "delta", tmp_path / "again")
    for place in random.integers(0, start, 100):  # the header: damage that reads as the same tensors does not matter
        path.write_bytes(good[:place] + bytes([good[place] ^ int(random.integers(1, 256))]) + good[place + 1 :])
        flags = ["--base", str(base), "--delta", str(tmp_path / "delta"), "--target", str(tmp_path / "again")]
        if apply_main(flags) == 0:
            assert files_of(tmp_path / "again") == files_of(target)
            shutil.rmtree(tmp_path / "again")


@pytest.mark.parametrize("shard_bytes", [1 << 30, 600])
def test_every_damaged_byte_of_a_target_is_found_and_named(
    tmp_path: Path, base: Path, shard_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    make_delta(base, write_model(tmp_path / "target", tuned(numbers(0)), shard_bytes=shard_bytes), tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "model")
    for name, _ in zip(damaged(tmp_path / "model", np.random.default_rng(7)), range(200), strict=False):
        assert weights_main(["verify", str(tmp_path / "model")]) == 3
        said = capsys.readouterr().err.splitlines()[-1]
        assert name in said or "tensor '" in said, (name, said)


def test_damage_in_the_weights_is_named_by_tensor(tmp_path: Path, base: Path, delta: Path) -> None:
    path = delta / WEIGHTS_NAME
    good = path.read_bytes()
    places = {tensor.name: tensor.offset + tensor.size_bytes - 1 for tensor in read_delta(delta).tensors}
    for name, place in places.items():
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(VerificationError, match=rf"tensor '{name}' of .*weights\.vdelta is damaged"):
            apply_delta(base, delta, tmp_path / "again")
    path.write_bytes(b"X" + good[1:])
    with pytest.raises(VerificationError, match=r"weights\.vdelta does not begin as a delta's weights do"):
        apply_delta(base, delta, tmp_path / "again")


def test_a_hash_listed_twice_is_found(tmp_path: Path, base: Path, delta: Path) -> None:
    sums = delta / SUMS_NAME
    sums.write_text(sums.read_text() * 2)
    with pytest.raises(VerificationError, match="SHA256SUMS is damaged"):
        apply_delta(base, delta, tmp_path / "again")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_delta_is_found(tmp_path: Path, base: Path, delta: Path, keep: int) -> None:
    path = delta / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VerificationError, match="bytes instead of"):
        apply_delta(base, delta, tmp_path / "again")


def test_a_missing_file_is_named(tmp_path: Path, base: Path, delta: Path) -> None:
    (delta / "files" / "tokenizer.json").unlink()
    with pytest.raises(VerificationError, match=r"tokenizer\.json"):
        apply_delta(base, delta, tmp_path / "again")


def test_half_a_download_is_a_damaged_delta_and_no_model(
    tmp_path: Path, delta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (delta / "vicuna_delta.json").unlink()
    for verb in ("verify", "inspect"):
        assert weights_main([verb, str(delta)]) == 3
        assert "lacks its vicuna_delta.json; the delta is damaged" in capsys.readouterr().err
    with pytest.raises(VicunaError, match="is a delta, not a model"):
        make_delta(delta, tmp_path / "target", tmp_path / "again")


def test_a_config_that_cannot_be_read_is_told_before_the_work(
    tmp_path: Path, base: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "config.json").write_text("{")
    with pytest.raises(VicunaError, match=r"base/config\.json:1:2: not JSON"):
        make_delta(base, target, tmp_path / "delta")
    assert "making the delta" not in capsys.readouterr().err


def test_a_checkpoint_without_tensors(tmp_path: Path, base: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(VicunaError, match="empty holds no tensors"):
        make_delta(base, empty, tmp_path / "delta")


def test_no_room(tmp_path: Path, base: Path, delta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(VicunaError, match="MiB free"):
        apply_delta(base, delta, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_commands_with_fastchats_flags(
    tmp_path: Path, base: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta, again = str(tmp_path / "d"), str(tmp_path / "again")
    assert make_main(["--base-model-path", str(base), "--target-model-path", str(target), "--delta-path", delta]) == 0
    assert apply_main(["--base", str(base), "--target", again, "--delta", delta]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    done = subprocess.run(["sha256sum", "--check"], input=line, text=True, capture_output=True, check=False)
    assert done.returncode == 0
    assert apply_main(["--base", str(target), "--target", str(tmp_path / "no"), "--delta", delta]) == 3


def test_a_kill_leaves_no_model(tmp_path: Path) -> None:
    """kill -9 at several moments of apply: the target folder never exists unless it is whole."""
    shapes = {f"model.layers.{i}.weight": (1024, 1024) for i in range(8)} | {"model.norm.weight": (16,)}
    base = write_model(tmp_path / "base", numbers(0, shapes))
    target = write_model(tmp_path / "target", tuned(numbers(0, shapes)))
    make_delta(base, target, tmp_path / "delta")
    command = [sys.executable, "-m", "vicuna.apply_delta", "--base", str(base), "--delta", str(tmp_path / "delta")]
    killed = 0
    for attempt in range(6):
        again = tmp_path / f"again{attempt}"
        process = subprocess.Popen([*command, "--target", str(again)], stdout=-3, stderr=-3)
        try:
            process.wait(timeout=0.15 + 0.06 * attempt)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        assert not again.exists() or files_of(again) == files_of(target)
    assert killed


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Peak memory of make and apply for 64 MiB and 256 MiB of weights: the same, within a few frames."""
    peaks = {}
    for num_layers in (4, 16):
        folder = tmp_path / str(num_layers)
        shapes = {f"model.layers.{i}.weight": (2048, 4096) for i in range(num_layers)} | {"model.norm.weight": (16,)}
        base, target = write_model(folder / "base", numbers(0, shapes)), folder / "target"
        write_model(target, tuned(numbers(0, shapes)))
        flags = ["--base", str(base), "--delta", str(folder / "delta"), "--target"]
        peaks["make", num_layers] = peak_bytes("vicuna.make_delta", *flags, str(target))
        peaks["apply", num_layers] = peak_bytes("vicuna.apply_delta", *flags, str(folder / "again"))
        assert files_of(folder / "again") == files_of(target)
    for what in ("make", "apply"):
        assert peaks[what, 16] < peaks[what, 4] + (48 << 20), peaks
        assert peaks[what, 16] < 256 << 20, peaks


def peak_bytes(module: str, *flags: str) -> int:
    """Peak resident memory of a command, measured from a process of its own."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=-3, stderr=-3);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", module, *flags]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
