"""Generations of the model in training: greedy replies to a few prompts, at every evaluation.

All prompts and their replies are the documents of one packed batch of the model in training; all ranks of a sharded
model call it together.

Before: `prepare`, which reads the prompts. After: `metrics` writes the replies to `samples.jsonl`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from vicuna.conversation import Message, ReplyDecoder, Template, encode_prompt, from_record
from vicuna.conversation.tokenizer import Tokenizer
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
        return _leading_messages(options.eval_data, options.num_samples or 0)
    if path.suffix in (".jsonl", ".json"):
        prompts = _leading_messages((path,), options.num_samples)
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


def _leading_messages(paths: Sequence[Path], limit: int | None) -> list[Prompt]:
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
    tokenizer: Tokenizer,
    ranks: Ranks,
    *,
    max_new_tokens: int,
) -> list[str]:
    """Greedy replies, without their end marks. Every rank of a sharded model must call it."""
    sequences = [list(encode_prompt(prompt, template, tokenizer)) for prompt in prompts]  # token ids
    decoders = [ReplyDecoder(template, tokenizer) for _ in prompts]
    replies = [""] * len(prompts)
    unfinished = list(range(len(prompts)))
    model.eval()
    for _ in range(max_new_tokens):
        tokens = model(_batch([sequences[index] for index in unfinished], ranks.device), next_tokens=True).tolist()
        tokens = json.loads(ranks.all_gather(json.dumps(tokens))[0])  # of rank 0: rounding differs between ranks
        for index, token in zip(unfinished, tokens, strict=True):
            sequences[index].append(token)
            replies[index] += decoders[index].push([token])
        unfinished = [
            index
            for index in unfinished
            if not decoders[index].stopped and sequences[index][-1] not in decoders[index].stop_token_ids
        ]
        if not unfinished:
            break
    reshard(model)
    return [reply + decoder.finish() for reply, decoder in zip(replies, decoders, strict=True)]


def _batch(documents: Sequence[list[int]], device: torch.device) -> Batch:
    """The batch of these documents, none of it supervised."""
    lengths = tuple(map(len, documents))
    input_ids = torch.tensor([[token for document in documents for token in document]], device=device)
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0).to(device)
    return Batch(input_ids, positions, input_ids[0], Documents.of(lengths, device), 0, ())
