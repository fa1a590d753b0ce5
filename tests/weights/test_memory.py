"""Peak memory does not grow with the model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.weights.builders import model_files, numbers, tuned, write_model
from tests.weights.gguf.builders import byte_level, make_model, shapes
from vicuna.weights.files.tensors import Tensor, split_into_shards


def peak_bytes(module: str, *flags: str) -> int:
    """Peak resident memory of a command, measured from a process of its own.

    (A child's peak begins with that of the process that it was forked from, and that of the tests is large.)
    """
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=-3, stderr=-3);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", module, *flags]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_making_and_applying_a_delta(tmp_path: Path) -> None:
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
        assert model_files(folder / "again") == model_files(target)
    for what in ("make", "apply"):
        assert peaks[what, 16] < peaks[what, 4] + (48 << 20), peaks
        assert peaks[what, 16] < 256 << 20, peaks


@pytest.mark.slow
def test_exporting_and_importing_gguf(tmp_path: Path) -> None:
    """There and back, 200 and 800 MiB of zeros (files with holes) in the same memory."""
    peaks: dict[str, list[int]] = {"export": [], "import": []}
    for layers in (3, 15):
        folder = make_model(tmp_path / f"tiny{layers}", byte_level(tmp_path / f"tokenizer{layers}", "gpt-2"))
        config = json.loads((folder / "config.json").read_text())
        config |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": layers}
        (folder / "config.json").write_text(json.dumps(config))
        plan, _ = split_into_shards(Tensor(name, "F32", shape) for name, shape in shapes(config).items())
        with (folder / "model.safetensors").open("wb") as file:
            file.write(plan[0].preamble)
            file.truncate(plan[0].size_bytes)
            for tensor in plan[0].tensors:
                if tensor.name.endswith("norm.weight"):
                    file.seek(len(plan[0].preamble) + tensor.offset)
                    file.write(np.ones(tensor.shape, "<f4").tobytes())
        output = tmp_path / f"{layers}.gguf"
        commands = {
            "export": ["export", "gguf", "--model", str(folder), "--output", str(output), "--type", "q4_0"],
            "import": ["import", "gguf", str(output), "--output-dir", str(tmp_path / f"back{layers}")],
        }
        for name, command in commands.items():
            peaks[name].append(peak_bytes("vicuna", *command) >> 20)
    for small, large in peaks.values():
        assert large < 250 and large < small + 40, peaks
