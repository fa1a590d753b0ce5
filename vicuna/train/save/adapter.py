"""The result of a LoRA run: `DIR/adapter` in peft's layout, which appears whole or not at all and is checked.

    adapter_config.json, adapter_model.safetensors    as peft writes them
    chat_template.jinja, vicuna_template.json, ...    template and tokenizer, for the merged model

Adapters that were saved empty or as zeros have cost people whole runs, so every tensor is read back and checked.

Before: the last step of `loop`. After: `vicuna weights merge-lora`, peft, serving.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from vicuna.conversation import Template, save_template
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.io.files import atomic_directory, atomic_file
from vicuna.io.model_files import read_model_object
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.lora import ADAPTER, is_adapter, lora_config
from vicuna.train.options import TrainOptions
from vicuna.train.ranks import Ranks
from vicuna.train.save.export import check_written, write_other_files, write_stop_tokens, write_weights
from vicuna.weights.files.tensors import Tensor, split_into_shards
from vicuna.weights.tools.adapter import CONFIG_NAME, PREFIX, check_adapter


def export_adapter(
    model: ConversationModel,
    tokenizer: Tokenizer,
    template: Template,
    *,
    options: TrainOptions,
    target: Path,
    extra_files: Iterable[Path],
    ranks: Ranks,
) -> None:
    """Write the adapter; every rank calls it. Arguments are those of `export_model`.

    Raises:
        VicunaError: `target` is there already; what was written is not whole, or all zeros.
        OSError: the disk refused.
    """
    weights = {
        PREFIX + name.replace(f".{ADAPTER}.", "."): weight
        for name, weight in model.named_weights().items()
        if is_adapter(name)
    }
    tensors = [Tensor(name, "F32", tuple(weight.shape)) for name, weight in weights.items()]
    [shard], _ = split_into_shards(tensors, max_shard_bytes=sys.maxsize)
    shard = dataclasses.replace(shard, file_name="adapter_model.safetensors")
    with ExitStack() as stack:
        with ranks.agreed():
            folder = stack.enter_context(atomic_directory(target)) if ranks.is_first else target
        folder = Path(ranks.all_gather(str(folder))[0])
        with ranks.agreed():
            digests = write_weights(weights, [shard], None, folder, ranks)
        with ranks.agreed():
            check_written(folder, [shard], digests, ranks)
            if ranks.is_first:
                write_config(folder, options)
                check_adapter(folder)
                write_other_files(folder, None, options.model, extra_files)
                (folder / "config.json").unlink(missing_ok=True)  # an adapter is no model
                write_stop_tokens(folder, template, tokenizer)
                save_template(template, folder)
                stack.close()


def write_config(folder: Path, options: TrainOptions) -> None:
    """Write `adapter_config.json` as peft does, but with its sets in order: peft has them in another one each time."""
    lora_config(options).save_pretrained(folder)
    path = folder / CONFIG_NAME
    config = read_model_object(path)
    if isinstance(modules := config.get("target_modules"), list):
        config["target_modules"] = sorted(modules)
    with atomic_file(path) as file:
        file.write(json.dumps(config, indent=2, sort_keys=True))
