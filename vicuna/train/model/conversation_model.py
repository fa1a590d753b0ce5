"""The model in training: a LLaMA-architecture decoder that turns a batch into a loss.

transformers has the architecture; attention (`attention`), loss (`loss`) and the reading of the weights are ours. The
loss is computed inside the root module's forward pass, the one place where a sharded model has its output head
gathered. The modules are built on the meta device, sharded over the ranks (`parallel`), and only then filled from the
files, so that no rank ever holds more than its own shards.

Before: a Hugging Face directory. After: `loop` trains it, `export` writes it.

Shapes: T tokens of all documents in the batch, S supervised positions, H hidden size, N documents.
"""

import copy
import functools
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from vicuna.errors import VicunaError
from vicuna.io.model_files import check_config, read_model_json, read_model_object
from vicuna.io.terminal import printable
from vicuna.train.batches.dataset import Batch
from vicuna.train.model.attention import NAME as ATTENTION
from vicuna.train.model.attention import can_skip_queries, varlen_attention
from vicuna.train.model.fused import ATTENTIONS, fuse, rotate
from vicuna.train.model.lora import base_name, fill_4bit, init_adapter, is_4bit, is_adapter
from vicuna.train.model.loss import linear_cross_entropy, supervised_indices
from vicuna.train.model.parallel import local_shard, shard_start
from vicuna.weights.files.checkpoint import CheckpointReader

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CHUNK_ELEMENTS = 1 << 22
SAMPLED_BLOCKS = 16
BLOCK_BYTES = 1 << 16


class ConversationModel(torch.nn.Module):
    """A causal language model whose forward pass takes a packed batch and returns the sum of its losses.

    Args:
        causal_lm: a transformers model with `.model`, the decoder, and `.lm_head`, its output head.
    """

    def __init__(self, causal_lm: Any) -> None:
        super().__init__()
        fuse(causal_lm)
        last = causal_lm.model.layers[-1]
        last.forward = functools.partial(_forward_last_layer, last)
        self.causal_lm = causal_lm

    def hidden_states(self, batch: Batch, indices: torch.Tensor | None = None) -> torch.Tensor:
        """(T, H): the decoder's last hidden state of every token; (S, H) with `indices` (S,), those of the labels."""
        output = self.causal_lm.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=None,
            use_cache=False,
            documents=batch.documents,
            indices=indices,
            batch=batch,
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def forward(self, batch: Batch, *, next_tokens: bool = False) -> torch.Tensor:
        """The cross-entropy summed over the batch's labels (a scalar, fp32).

        With `next_tokens` the most probable token after each document instead: (N,).
        """
        if next_tokens:
            last = self.hidden_states(batch)[batch.documents.cu_seqlens[1:].long() - 1]  # (N, H)
            head: torch.Tensor = self.causal_lm.lm_head.weight
            return (last.to(head.dtype) @ head.T).float().argmax(-1)
        indices = supervised_indices(batch.labels)
        hidden = self.hidden_states(batch, indices)
        return linear_cross_entropy(hidden, self.causal_lm.lm_head.weight, batch.labels.index_select(0, indices))

    def named_weights(self) -> dict[str, torch.nn.Parameter]:
        """The weights by their names in a Hugging Face checkpoint, and those of an adapter; tied ones once."""
        return {base_name(name): weight for name, weight in self.causal_lm.named_parameters()}


def _forward_last_layer(
    layer: Any,
    hidden_states: torch.Tensor,
    *,
    indices: torch.Tensor | None = None,
    batch: Batch | None = None,
    **others: Any,
) -> torch.Tensor:
    """The forward pass of the decoder's last layer, computed for the supervised positions only.

    Its MLP has only these as input; on a CPU its attention has queries for these only, too. With 30% of the tokens
    unsupervised that is 6% less arithmetic in a model of four layers and 0.6% less in one of forty.

    Args:
        hidden_states: (1, T, H).
        indices: (S,) the supervised positions in T; None for all.

    Returns:
        (1, S, H), or (1, T, H) without `indices`.
    """
    normed = layer.input_layernorm(hidden_states)
    if indices is not None and batch is not None and _can_attend_for_some(layer.self_attn, batch):
        attended = _attend_for(layer.self_attn, normed, indices, batch, *others["position_embeddings"])
        hidden: torch.Tensor = hidden_states.index_select(1, indices) + attended
    else:
        hidden = hidden_states + layer.self_attn(hidden_states=normed, **others)[0]
        if indices is not None:
            hidden = hidden.index_select(1, indices)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _can_attend_for_some(module: Any, batch: Batch) -> bool:
    """Whether this attention can have queries for some tokens only. (A compiled layer would be compiled per batch.)"""
    if torch.compiler.is_compiling() or type(module).__name__ not in ATTENTIONS or batch.supervised_spans is None:
        return False
    window = getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))  # Mistral: the config's
    return can_skip_queries(batch.input_ids.device, batch.documents, window)


def _attend_for(
    module: Any,
    normed: torch.Tensor,
    indices: torch.Tensor,
    batch: Batch,
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> torch.Tensor:
    """The forward pass of transformers' attention module, with queries for some tokens only.

    Args:
        normed: (1, T, H).
        indices: (S,) the queries' positions in T.
        cos, sin: (1, T, D), of the rotary embedding.

    Returns:
        (1, S, H).
    """
    query, key, value = (
        project(states).unflatten(-1, (-1, module.head_dim))  # (1, T or S, heads, D)
        for project, states in (
            (module.q_proj, normed.index_select(1, indices)),
            (module.k_proj, normed),
            (module.v_proj, normed),
        )
    )
    if hasattr(module, "q_norm"):  # Qwen 3
        query, key = module.q_norm(query), module.k_norm(key)
    query_cos, query_sin = cos.index_select(1, indices), sin.index_select(1, indices)
    attended, _ = varlen_attention(
        module,
        rotate(query.transpose(1, 2), query_cos, query_sin),
        rotate(key.transpose(1, 2), cos, sin),
        value.transpose(1, 2),
        None,
        documents=batch.documents,
        scaling=module.scaling,
        query_spans=batch.supervised_spans,
    )
    output: torch.Tensor = module.o_proj(attended.flatten(2))
    return output


def read_config(path: Path) -> PretrainedConfig:
    """A model directory's `config.json`; read once for a run and passed on.

    Raises:
        VicunaError: no directory, no config, an architecture that cannot be trained here.
    """
    if not path.is_dir():
        raise VicunaError(f"--model {path}: no such folder; give a Hugging Face model folder")
    if not (path / "config.json").is_file():
        raise VicunaError(f"--model {path} has no config.json; give a Hugging Face model folder")
    check_config(read_model_object(path / "config.json"), str(path / "config.json"))
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers checks types too, with errors of its own
        reason = " ".join(str(error).split())[:200]
        raise VicunaError(f"{path / 'config.json'} cannot be read ({reason}); fetch the model again") from error
    if config.model_type not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise VicunaError(f"{path} is a '{config.model_type}' model; what can be trained is: {known}")
    if getattr(config, "attention_dropout", 0.0) != 0:
        raise VicunaError(f"{path / 'config.json'}: attention_dropout is {config.attention_dropout}; set it to 0")
    return config


def build_model(config: PretrainedConfig) -> ConversationModel:
    """The model's modules on the meta device: shapes and names without memory. `config` is copied."""
    own = copy.deepcopy(config)
    try:
        with torch.device("meta"):
            causal_lm = AutoModelForCausalLM.from_config(own, dtype=torch.float32, attn_implementation=ATTENTION)
    except Exception as error:  # whatever a combination of its values makes transformers and torch raise
        reason = printable(f"{type(error).__name__}: {error}", limit=200)
        raise VicunaError(f"config.json describes no model that can be built ({reason}); fetch it again") from error
    return ConversationModel(causal_lm)


def load_model(
    path: Path,
    config: PretrainedConfig,
    device: torch.device,
    wrap: Callable[[ConversationModel], None] | None = None,
    *,
    offload: bool = False,
    seed: int = 0,
) -> ConversationModel:
    """Build a model and read its weights in fp32, the precision that training keeps them in (frozen ones: as wrapped).

    Args:
        path: a Hugging Face model directory.
        config: of that directory (`read_config`).
        device: of the weights.
        wrap: changes the modules before they have memory (`wrap_model`); each rank of a sharded model reads its shards.
        offload: keep the weights in the host's memory instead.
        seed: of an adapter's initial values.

    Raises:
        VicunaError: weights that are missing, unreadable or of the wrong shape.
    """
    model = build_model(config)
    if wrap:
        wrap(model)
    _give_memory(model, torch.device("cpu") if offload else device)
    _finish_modules(model.causal_lm, device)
    with CheckpointReader(path) as reader:
        check_weights(model, reader)
        for name, weight in list(model.causal_lm.named_parameters()):
            if is_adapter(name):
                init_adapter(name, weight, seed)
            elif is_4bit(weight):
                whole = torch.empty(weight.shape, dtype=torch.bfloat16)
                _read_shard(reader, base_name(name), whole)
                fill_4bit(model.causal_lm.get_submodule(name.rpartition(".")[0]), whole, device)
            else:
                _read_shard(reader, base_name(name), weight)
    return model


def _give_memory(model: ConversationModel, device: torch.device) -> None:
    """Allocate every weight but the 4-bit ones, which are allocated when they are quantized."""
    if not any(is_4bit(weight) for weight in model.parameters()):
        model.to_empty(device=device)
        return
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if not is_4bit(weight):
                empty = torch.empty_like(weight, device=device)
                module.register_parameter(name, torch.nn.Parameter(empty, requires_grad=weight.requires_grad))


def _finish_modules(causal_lm: Any, device: torch.device) -> None:
    """Restore what the meta device loses: the rotary frequencies, and the tie of head and embedding."""
    rotary = causal_lm.model.rotary_emb
    causal_lm.model.rotary_emb = type(rotary)(config=causal_lm.config).to(device)
    known = dict(causal_lm.model.rotary_emb.named_buffers(prefix="model.rotary_emb"))
    assert known.keys() == dict(causal_lm.named_buffers()).keys(), "a buffer that is not filled"
    if causal_lm.config.tie_word_embeddings:
        causal_lm.lm_head.weight = causal_lm.model.embed_tokens.weight


def check_weights(model: ConversationModel, reader: CheckpointReader) -> None:
    """Check that a checkpoint has every weight of the model, in its shape and in a dtype that can be read.

    Raises:
        VicunaError: it has not; the message names the first weight that differs.
    """
    weights = {name: weight for name, weight in model.named_weights().items() if not is_adapter(name)}
    path = reader.path
    missing = sorted(weights.keys() - reader.tensors.keys())
    if missing and missing[0].removeprefix("model.") in reader.tensors:
        raise VicunaError(f"{path} stores {missing[0]} under another name; load it once with transformers and save it")
    if missing:
        raise VicunaError(f"{path} lacks {len(missing)} weights, the first is {missing[0]}; fetch the model again")
    for name, weight in sorted(weights.items()):
        found, wanted = reader.tensors[name], tuple(weight.shape)
        if found.shape != wanted:
            raise VicunaError(
                f"{path}: {name} is {list(found.shape)}, its config.json wants {list(wanted)}; fetch the model again"
            )
        if found.dtype not in DTYPES:
            raise VicunaError(f"{path} stores {name} as {found.dtype}; cast it to one of {', '.join(DTYPES)} first")


@torch.no_grad()
def _read_shard(reader: CheckpointReader, name: str, weight: torch.Tensor) -> None:
    """Fill this rank's shard of a weight from the file, a few MiB at a time."""
    shard = local_shard(weight).flatten()
    dtype = DTYPES[reader.tensors[name].dtype]
    start = shard_start(weight) * math.prod(weight.shape[1:]) * dtype.itemsize
    for part in shard.split(CHUNK_ELEMENTS):
        data = bytearray(reader.read(name, start, part.numel() * dtype.itemsize))
        part.copy_(torch.frombuffer(data, dtype=dtype))
        start += len(data)


def model_fingerprint(path: Path) -> str:
    """A hash of the config and of sixteen blocks of every weight file, so that a large model need not be read whole."""
    digest = hashlib.sha256(json.dumps(read_model_json(path / "config.json"), sort_keys=True).encode())
    with CheckpointReader(path) as reader:
        files = reader.files
    for file_path in sorted(files):
        size = file_path.stat().st_size
        digest.update(f"{file_path.name} {size}".encode())
        with file_path.open("rb") as file:
            for block in range(SAMPLED_BLOCKS):
                file.seek(max(0, size - BLOCK_BYTES) * block // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
