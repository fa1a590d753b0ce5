"""What the training bench trains: a small LLaMA, its sentencepiece tokenizer, and conversations of ShareGPT's lengths.

Everything is drawn from a seed, or the conversations are read from a file; cut to whole rounds within the longest
length, so that no trainer truncates and all see the same tokens.

Before: the bench's arguments. After: `train.py`.
"""

import gzip
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARY = 4096
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
}
"""5.26 million weights with a vocabulary of 4,096."""
SPARE_TOKENS = 10
"""Room below the longest length, because FastChat's slow tokenizer may count a token or two more."""

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Material:
    """The files that every trainer is given.

    Args:
        sharegpt: a JSON array in FastChat's shape.
        records: the same as our records.
        held_out: more of them, to measure all results with.
    """

    model: Path
    sharegpt: Path
    records: Path
    held_out: Path


def make_material(folder: Path, *, conversations: int, max_length: int, seed: int, data: Path | None) -> Material:
    """Draw or read the conversations, train a tokenizer on them, and save an untrained model with it."""
    held_out = max(4, conversations // 10)
    if data is None:
        wanted = draw_conversations(conversations + held_out, random.Random(seed))
    else:
        wanted = read_conversations(data)
    model = folder / "model"
    save_tokenizer(model, "\n".join(message["content"] for messages in wanted for message in messages))
    save_model(model, seed)
    kept = [cut for messages in wanted if (cut := cut_to_length(messages, model, max_length - SPARE_TOKENS))]
    held_out = min(held_out, len(kept) // 4)
    training = kept[held_out:][:conversations]
    material = Material(model, folder / "sharegpt.json", folder / "records.jsonl", folder / "held_out.jsonl")
    names = {"user": "human", "assistant": "gpt"}
    sharegpt = [
        {
            "id": f"c{number}",
            "conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in messages],
        }
        for number, messages in enumerate(training)
    ]
    material.sharegpt.write_text(json.dumps(sharegpt), "utf-8")
    for path, several in ((material.records, training), (material.held_out, kept[:held_out])):
        rows = [json.dumps({"id": f"c{number}", "messages": messages}) for number, messages in enumerate(several)]
        path.write_text("".join(row + "\n" for row in rows), "utf-8")
    return material


def draw_conversations(count: int, draw: random.Random) -> list[Messages]:
    """One to a dozen rounds; questions are short, replies long, both lognormal, as in ShareGPT."""
    words = ["".join(draw.choice("bcdfghklmnprstvw") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))]
    while len(words) < 4000:
        words.append("".join(draw.choice("bcdfghklmnprstvw") + draw.choice("aeiou") for _ in range(draw.randint(1, 4))))
    weights = [1 / (rank + 2) for rank in range(len(words))]

    def text(mean: float, spread: float) -> str:
        size = max(1, round(draw.lognormvariate(mean, spread)))
        chosen = draw.choices(words, weights, k=size)
        return " ".join(word + ("." if draw.random() < 0.08 else "") for word in chosen)

    conversations = []
    for _ in range(count):
        rounds = min(12, 1 + int(draw.expovariate(1 / 2.6)))
        turns = [turn for _ in range(rounds) for turn in (("user", 3.2, 1.0), ("assistant", 5.35, 0.7))]
        conversations.append([{"role": role, "content": text(mean, spread)} for role, mean, spread in turns])
    return conversations


def read_conversations(path: Path) -> list[Messages]:
    """Conversations in the ShareGPT shape (.json or .json.gz); what comes before the first question is left out."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    roles = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant"}
    found = []
    for record in json.loads(text):
        messages: Messages = []
        for turn in record["conversations"]:
            role = roles.get(turn["from"])
            if role == ("assistant" if len(messages) % 2 else "user"):
                messages.append({"role": role, "content": turn["value"]})
            elif messages:
                break
        found.append(messages)
    return found


def cut_to_length(messages: Messages, model: Path, longest: int) -> Messages:
    """As many whole rounds as fit; nothing if not even the first does."""
    from vicuna.conversation import encode, from_record, get_template

    template, tokenizer = get_template("vicuna_v1.1"), _tokenizer(model)
    kept: Messages = []
    for end in range(2, len(messages) + 1, 2):
        turns = from_record({"messages": messages[:end]}).messages
        if len(encode(turns, template, tokenizer).input_ids) > longest:
            break
        kept = messages[:end]
    return kept


_tokenizers: dict[Path, Any] = {}


def _tokenizer(model: Path) -> Any:
    from vicuna.conversation import load_tokenizer

    if model not in _tokenizers:
        _tokenizers[model] = load_tokenizer(model)
    return _tokenizers[model]


def save_tokenizer(folder: Path, text: str) -> None:
    """Train a sentencepiece tokenizer of the LLaMA kind."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in text.splitlines() if line.strip()),
        model_writer=trained,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        max_sentence_length=1 << 16,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(trained.getvalue())
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def save_model(folder: Path, seed: int) -> None:
    """An untrained LLaMA."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **SHAPE)).save_pretrained(folder)
