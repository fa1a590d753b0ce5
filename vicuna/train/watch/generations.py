"""What the model answers as it learns: greedy replies to a few prompts, at every evaluation.

All prompts grow together, as the documents of one packed batch, through the very model that is being trained; a sharded
model is asked by all its ranks at once.

Before: `prepare`, which reads the prompts. After: `metrics` logs the replies and `samples.jsonl` keeps them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vicuna.conversation import Message, ReplyDecoder, Template, encode_prompt, from_record
from vicuna.errors import VicunaError
from vicuna.io.jsonl import read_json, read_jsonl
from vicuna.train.batches.dataset import Batch
from vicuna.train.batches.documents import Documents
from vicuna.train.model.conversation_model import ConversationModel
from vicuna.train.model.parallel import reshard
from vicuna.train.options import TrainOptions
from vicuna.train.ranks import Ranks

Prompt = list[Message]


def read_prompts(options: TrainOptions) -> list[Prompt]:
    """The prompts of `--sample-prompts`: lines of text, or records up to their last reply.

    Raises:
        VicunaError: a file without prompts, or one that cannot be read.
    """
    path = options.sample_prompts
    if path is None:
        return _first_turns(options.eval_data, options.num_samples or 0)
    if path.suffix in (".jsonl", ".json"):
        prompts = _first_turns((path,), options.num_samples)
    else:
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            raise VicunaError(
                f"--sample-prompts {path} is not UTF-8 text; give lines of text, or .jsonl records"
            ) from None
        prompts = [[Message("user", line)] for line in lines if line.strip()][: options.num_samples]
    if not prompts:
        raise VicunaError(f"--sample-prompts {path} holds no prompt; write one a line")
    return prompts


def _first_turns(paths: Sequence[Path], limit: int | None) -> list[Prompt]:
    """Every record's messages before its first reply."""
    prompts: list[Prompt] = []
    for path in paths:
        for record in read_json(path) if path.suffix == ".json" else read_jsonl(path):
            if limit is not None and len(prompts) >= limit:
                return prompts
            messages = list(from_record(record).messages)
            roles = [message.role for message in messages]
            number = roles.index("assistant") if "assistant" in roles else len(roles)
            if number:
                prompts.append(messages[:number])
    return prompts


@torch.no_grad()
def generate(
    model: ConversationModel,
    prompts: Sequence[Prompt],
    template: Template,
    tokenizer: Any,
    ranks: Ranks,
    *,
    max_new_tokens: int,
) -> list[str]:
    """Greedy replies, without their end marks. Every rank of a sharded model must call it."""
    texts = [list(encode_prompt(prompt, template, tokenizer)) for prompt in prompts]
    decoders = [ReplyDecoder(template, tokenizer) for _ in prompts]
    replies = [""] * len(prompts)
    open_places = list(range(len(prompts)))
    model.eval()
    for _ in range(max_new_tokens):
        tokens = model(_batch([texts[place] for place in open_places], ranks.device), next_tokens=True).tolist()
        tokens = json.loads(ranks.exchange(json.dumps(tokens))[0])  # rounding may differ, the replies must not
        for place, token in zip(open_places, tokens, strict=True):
            texts[place].append(token)
            replies[place] += decoders[place].push([token])
        open_places = [
            place
            for place in open_places
            if not decoders[place].stopped and texts[place][-1] not in decoders[place].stop_token_ids
        ]
        if not open_places:
            break
    reshard(model)
    return [reply + decoder.finish() for reply, decoder in zip(replies, decoders, strict=True)]


def _batch(documents: Sequence[list[int]], device: torch.device) -> Batch:
    """Documents end to end, nothing of them supervised."""
    lengths = tuple(map(len, documents))
    input_ids = torch.tensor([[token for document in documents for token in document]], device=device)
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0).to(device)
    return Batch(input_ids, positions, input_ids[0], Documents.of(lengths, device), 0, ())
