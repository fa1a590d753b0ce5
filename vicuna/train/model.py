"""The model in training: a LLaMA-architecture decoder that turns a batch into a loss.

transformers brings the architecture and reads the weights; attention (`attention`) and loss (`loss`) are ours. The loss
is computed inside the root module's forward pass, the one place where a sharded model has its output head whole.

Before: a Hugging Face directory. After: `loop` trains it, `export` writes it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from vicuna.errors import VicunaError
from vicuna.train.attention import NAME as ATTENTION
from vicuna.train.dataset import Batch
from vicuna.train.loss import linear_cross_entropy

MODEL_TYPES = ("llama",)
SAMPLED_BLOCKS = 16
BLOCK_BYTES = 1 << 16


class ConversationModel(torch.nn.Module):
    """A causal language model whose forward pass takes a packed batch and gives the sum of its losses.

    Args:
        causal_lm: a transformers model with `.model`, the decoder, and `.lm_head`, its output head.
    """

    def __init__(self, causal_lm: Any) -> None:
        super().__init__()
        self.causal_lm = causal_lm

    def hidden_states(self, batch: Batch) -> torch.Tensor:
        """(T, H): the decoder's last hidden state of every token."""
        output = self.causal_lm.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=None,
            use_cache=False,
            documents=batch.documents,
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def forward(self, batch: Batch) -> torch.Tensor:
        """The cross-entropy summed over the batch's supervised tokens (a scalar, fp32)."""
        return linear_cross_entropy(self.hidden_states(batch), self.causal_lm.lm_head.weight, batch.targets)

    def named_weights(self) -> dict[str, torch.nn.Parameter]:
        """The weights by the names they have in a Hugging Face checkpoint; tied ones once."""
        return dict(self.causal_lm.named_parameters())


def read_config(path: Path) -> PretrainedConfig:
    """A model directory's config, if it is a model that can be trained here.

    Raises:
        VicunaError: no directory, no config, another architecture.
    """
    if not path.is_dir():
        raise VicunaError(f"--model {path}: no such directory; give a Hugging Face model directory")
    if not (path / "config.json").is_file():
        raise VicunaError(f"--model {path} has no config.json; give a Hugging Face model directory")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers checks types too, with errors of its own
        said = " ".join(str(error).split())[:200]
        raise VicunaError(f"{path / 'config.json'} cannot be read ({said}); fetch the model again") from error
    if config.model_type not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise VicunaError(f"{path} is a '{config.model_type}' model; what can be trained is: {known}")
    if getattr(config, "attention_dropout", 0.0):
        raise VicunaError(f"{path / 'config.json'}: attention_dropout is {config.attention_dropout}; set it to 0")
    return config


def load_model(path: Path, device: torch.device) -> ConversationModel:
    """Read a model's weights in fp32, the precision that training keeps them in.

    Raises:
        VicunaError: weights that are missing, unreadable or of the wrong shape.
    """
    config = read_config(path)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        causal_lm, report = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise VicunaError(f"{path}: its weights cannot be read ({error}); fetch the model again") from None
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise VicunaError(
            f"{path}: {name} is {list(found)}, its config.json wants {list(wanted)}; fetch the model again"
        )
    if missing := sorted(report["missing_keys"]):
        raise VicunaError(f"{path} lacks {len(missing)} weights, the first is {missing[0]}; fetch the model again")
    return ConversationModel(causal_lm.to(device))


def model_fingerprint(path: Path) -> str:
    """A hash of the config and of sixteen blocks of every weight file, so that a large model need not be read whole."""
    digest = hashlib.sha256(json.dumps(json.loads((path / "config.json").read_text("utf-8")), sort_keys=True).encode())
    for file_path in sorted(path.glob("*.safetensors")):
        size = file_path.stat().st_size
        digest.update(f"{file_path.name} {size}".encode())
        with file_path.open("rb") as file:
            for block in range(SAMPLED_BLOCKS):
                file.seek(max(0, size - BLOCK_BYTES) * block // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
