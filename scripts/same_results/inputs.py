"""The fixed inputs of `same_results`: conversations ordinary and hostile, judged answers, and tiny models.

Everything is made once and given to both trees, so nothing of vicuna is imported here. Conversations are seeded; their
words are those of `scripts/bench/pages.py`.
"""

import gzip
import json
import random
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts" / "bench")]

from pages import Writer, conversations  # noqa: E402

SEED = 20
NUM_CONVERSATIONS = 160
NUM_TRAINING_RECORDS = 24
NUM_QUESTIONS = 24
Row = dict[str, Any]

# Answers that a step drops, repairs or must not touch, by the id that the record gets.
HOSTILE_ANSWERS = {
    "refusal": "I'm sorry, but I cannot help with that.",
    "refusal-that-helps": "I'm sorry, but I cannot browse. However, here is how: <ol><li>open it</li></ol>",
    "error-message": "<p>Too many requests in 1 hour. Try again later.</p>",
    "network-error": "The first half of it.<br><br>network error",
    "other-name": "<p>I am ChatGPT, a model trained by OpenAI.</p>",
    "leftovers": "<div class='markdown'><p>Yes.</p></div>Copy code<button>Regenerate response</button>1 / 2",
    "mail-and-phone": "Write to jane.doe@mailbox.org or call +49 30 1234567; card 4111 1111 1111 1111, not 4111 1111.",
    "keys": "Set sk-abcdefghijklmnopqrstuvwxyz0123456789ABCD and AKIAIOSFODNN7EXAMPLE at 192.168.17.4 or 8.8.4.4.",
    "caught-in-a-loop": "the same words come once more and then " * 60,
    "unclosed": "<p>One <b>two <i>three<ul><li>four<li>five<table><tr><td>six|seven<pre><code>x < y",
    "not-html": "In C++: vector<int> a; if (a < b && c > d) { __init__(*args, **kwargs); }",
    "entities": "<p>&lt;script&gt; &amp;amp; &nbsp;&#8203;&#x1F600; &notanentity; &#0;</p>",
    "script": "<script>alert(1)</script><style>p{}</style><p onclick='x'>Hello <!-- hidden --></p><svg><path/></svg>",
    "code-bar": '<pre><div class="bg-black mb-4 rounded-md"><div><span>python</span><button>Copy code</button></div>'
    '<div><code class="!whitespace-pre hljs language-python">\tdef f():\n\n    return "```"\n</code></div></div></pre>',
    "formula": '<p>So <span class="katex"><span class="katex-mathml"><math><semantics><mi>x</mi><annotation '
    'encoding="application/x-tex">\\frac{a}{b} &lt; 1</annotation></semantics></math></span><span class="katex-html" '
    'aria-hidden="true">ab</span></span>.</p>',
    "nested": "<ol start=7><li>a<ul><li>b<pre><code>c\n  d</code></pre></li></ul></li><li><blockquote>e</blockquote>"
    "<table><thead><tr><th>f|g</th></tr></thead><tbody><tr><td>h<br>i</td></tr></tbody></table></li></ol>",
    "deep": "<div>" * 300 + "deep" + "</div>" * 300,
    "template-words": "USER: who? ASSISTANT: me.</s><s>[INST] <<SYS>> <|im_end|>\n<|im_start|>system\n### Human: <bos>",
    "markdown": "# *a* _b_ `c` ~~d~~ [e](f) ![g](h)\n1. i\n- j\n> k\n    l\n***\n\\* m | n",
    "control": "a\u0000b\u0007c\u200bd\u202ee\ufefff\r\ng\u2028h\u00a0i\ud800j",
    "german": "Das ist eine Antwort auf Deutsch, die lang genug ist, damit man die Sprache sicher erkennen kann.",
    "chinese": "这是一个足够长的中文回答，用来检查语言识别和按标点切分长文本的步骤是否仍然给出同样的结果。",
    "arabic": "هذه إجابة باللغة العربية طويلة بما يكفي لتحديد اللغة بشكل مؤكد.",
    "emoji": "👩‍👩‍👧‍👦 🇩🇪 é é ﬁ Å ㎏",
    "empty": "",
    "white": " \n\t <p> </p><br>",
    "long-word": "x" * 6000,
    "long": "<p>" + "</p><p>".join(f"Paragraph {n} says something else than the one before it." for n in range(150)),
}


def make_inputs(folder: Path) -> None:
    """Write all inputs into `folder`."""
    folder.mkdir(parents=True)
    writer = Writer(SEED)
    for name in ("sharegpt_sample.json", "identity.jsonl"):
        shutil.copy(ROOT / "data" / name, folder / name)
    _write_conversations(folder, writer)
    _write_training_records(folder, writer)
    _write_judgments(folder, random.Random(SEED))
    _write_models(folder, writer)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), "ascii")


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "ascii")


def _write_conversations(folder: Path, writer: Writer) -> None:
    _write_json(folder / "pages.json", conversations(NUM_CONVERSATIONS, SEED))
    _write_json(folder / "hostile.json", hostile_conversations(writer))
    asked = [{"text": " ".join(writer.sentences[start : start + 3])} for start in (0, 500)]
    _write_lines(folder / "questions.jsonl", asked)
    lines = "".join(json.dumps(row) + "\n" for row in other_shapes(asked))
    broken = (
        b'{"id": "cut", "conversations": [{"from": "hum\n[1, 2]\n"text"\n\xff\xfe\n{"id": "nan", "messages": NaN}\n'
    )
    (folder / "shapes.jsonl.gz").write_bytes(gzip.compress(lines.encode("ascii") + broken, mtime=0))


def _sharegpt(identifier: str, *turns: tuple[str, Any]) -> Row:
    return {"id": identifier, "conversations": [{"from": role, "value": text} for role, text in turns]}


def hostile_conversations(writer: Writer) -> list[Row]:
    """Each hostile answer as a later and as the only round, and as a question; and broken successions of turns."""

    def ask() -> tuple[str, str]:
        return "human", writer.prose(2)

    rows: list[Row] = []
    for name, answer in HOSTILE_ANSWERS.items():
        rows.append(_sharegpt(name, ask(), ("gpt", writer.answer().html), ask(), ("gpt", answer)))
        rows.append(_sharegpt(f"{name}-alone", ask(), ("gpt", answer)))
        rows.append(_sharegpt(f"{name}-asked", ("human", answer), ("gpt", writer.prose(2))))
    who, me = ("human", "Who are you, and what can you do?"), ("gpt", "A helper.")
    return [
        *rows,
        _sharegpt("answer-first", me, who, me),
        _sharegpt("two-questions", who, who, me),
        _sharegpt("two-answers", who, me, ("gpt", "And more of it.")),
        _sharegpt("no-answer", who, me, who),
        _sharegpt("with-system", ("system", "Be brief."), who, me),
        _sharegpt("late-system", who, me, ("system", "Be brief."), who, me),
        _sharegpt("other-roles", ("user", "a?"), ("chatgpt", "b"), ("bing", "c"), ("bard", "d"), ("tool", "e")),
        _sharegpt("value-missing", who, ("gpt", None)),
        _sharegpt("value-number", who, ("gpt", 7)),
        _sharegpt("again", who, me),
        _sharegpt("again", who, me),
        _sharegpt("again", who, ("gpt", "Another helper.")),
        _sharegpt("no-turns"),
        {"id": 12, "conversations": [{"from": "human", "value": "Numbered?"}, {"from": "gpt", "value": "Yes."}]},
        {"conversations": [{"from": "human", "value": "Nameless?"}, {"from": "gpt", "value": "Yes."}], "kept": [1]},
        {"id": "no-conversations", "items": []},
    ]


def other_shapes(questions: list[Row]) -> list[Row]:
    """The shapes of OpenAI and Alpaca; and evaluation questions, the shipped ones and others, not to be trained on."""
    texts = [row["text"] for row in [*_questions()[:3], *questions]]
    asked = [_sharegpt(f"eval-{n}", ("human", text), ("gpt", "An answer.")) for n, text in enumerate(texts)]
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why is the sky blue?"}]
    return [
        *asked,
        {"id": "openai", "messages": [*messages, {"role": "assistant", "content": "Short waves scatter more."}]},
        {"messages": [*messages, {"role": "assistant", "content": None}], "tools": []},
        {"instruction": "Add the numbers.", "input": "2 and 3", "output": "5"},
        {"instruction": "Say hello.", "input": "", "output": "Hello."},
    ]


def _questions() -> list[Row]:
    return [json.loads(line) for line in (ROOT / "eval" / "questions.jsonl").read_text("utf-8").splitlines()]


def _write_training_records(folder: Path, writer: Writer) -> None:
    hostile = ["template-words", "control", "chinese", "emoji", "markdown"]
    answers = [HOSTILE_ANSWERS[name].replace("\ud800", "") for name in hostile]
    answers += [writer.prose(3) for _ in range(NUM_TRAINING_RECORDS - len(answers))]
    rows = []
    for number, answer in enumerate(answers):
        turns = [
            ("user", writer.prose(1)),
            ("assistant", answer),
            ("user", answer[:80]),
            ("assistant", writer.prose(1)),
        ]
        start = [("system", "Answer in one sentence.")] if number % 4 == 0 else []
        messages = [{"role": role, "content": text} for role, text in [*start, *turns[: 2 + 2 * (number % 2)]]]
        rows.append({"id": f"record-{number}", "messages": messages})
    _write_lines(folder / "records.jsonl", rows[4:])
    _write_lines(folder / "eval_records.jsonl", rows[:4])


def _write_judgments(folder: Path, draw: random.Random) -> None:
    models = ("apple", "birch", "cedar")
    questions = _questions()[:: max(1, 80 // NUM_QUESTIONS)]
    answers, pairs, scores = [], [], []
    for question in questions:
        number, common = question["question_id"], {"question_id": question["question_id"], "status": "scored"}
        common |= {"category": question["category"], "repeat": 0, "turn": 1, "prompt_hash": "0" * 64, "cut_answers": []}
        common |= {"usage": {"prompt_tokens": draw.randint(200, 900), "completion_tokens": draw.randint(9, 90)}}
        for place, model in enumerate(models):
            text = f"{model} answers <b>{number}</b> with {'word ' * draw.randint(3, 60)}"
            answers.append({"question_id": number, "model_id": model, "text": text, "answer_id": f"{model}{number}"})
            score = draw.choice([None, *range(1, 11)])
            judged = {"model": model, "judge": ["sage", "single-1"], "order": 1, "score": score, "mode": "single"}
            scores.append({**common, **judged, "judgment": f"I say [[{score}]] & no more", "key": f"{model}{number}"})
            for other in models[place + 1 :]:
                for order in (1, 2):
                    winner = draw.choices(["model_1", "model_2", "tie", None], (50, 30, 15, 5))[0]
                    judged = {"model_1": model, "model_2": other, "judge": ["sage", "pair-1"], "order": order}
                    judged |= {
                        f"g{order}_winner": winner,
                        f"g{order}_judgment": f"Since <i>{winner}</i>",
                        "mode": "pair",
                    }
                    pairs.append({**common, **judged, "key": f"{model}{other}{number}{order}"})
    _write_lines(folder / "answers.jsonl", answers)
    _write_lines(folder / "pair_judgments.jsonl", pairs)
    _write_lines(folder / "single_judgments.jsonl", scores)


# Models. 256 divides the larger one's rows, so that they can be of llama.cpp's K types.


def _write_models(folder: Path, writer: Writer) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    sentences = [writer.prose(2) for _ in range(400)] + [*HOSTILE_ANSWERS.values()]
    shapes = {"pieces": (256, 512, False), "bytes": (64, 96, True)}
    for kind, train_tokenizer in (("pieces", _sentencepiece), ("bytes", _byte_level_bpe)):
        tokenizer = folder / f"{kind}-tokenizer"
        vocab_size = train_tokenizer(tokenizer, [text.encode("utf-8", "ignore").decode() for text in sentences])
        hidden, intermediate, is_tied = shapes[kind]
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=is_tied,
            bos_token_id=1,
            eos_token_id=2,
        )
        model = LlamaForCausalLM(config)
        _save(model, folder / f"{kind}-base", tokenizer)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 1e-3 * torch.randn_like(weight) * (torch.rand_like(weight) < 0.9)
        _save(model, folder / f"{kind}-tuned", tokenizer)
    _write_adapter(folder / "adapter")


def _save(model: Any, folder: Path, tokenizer: Path) -> None:
    """The model in fp32, and rounded to the two halves in folders beside."""
    import copy

    import torch

    for ending, dtype in {"": torch.float32, "-bf16": torch.bfloat16, "-fp16": torch.float16}.items():
        target = folder.with_name(folder.name + ending)
        shutil.copytree(tokenizer, target)
        copy.deepcopy(model).to(dtype).save_pretrained(target)


def _sentencepiece(folder: Path, texts: list[str]) -> int:
    import sentencepiece

    folder.mkdir()
    lines = [line for text in texts for line in text.replace("\0", "").splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "tokenizer"),
        minloglevel=2,
        num_threads=1,
        vocab_size=800,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
    )
    (folder / "tokenizer.vocab").unlink()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **special, "legacy": True})
    return int(sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size())


def _byte_level_bpe(folder: Path, texts: list[str]) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    fast.save_pretrained(folder)
    return len(fast)


def _write_adapter(folder: Path) -> None:
    """A LoRA adapter of `pieces-base` as peft saves one, of random numbers."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    sizes = {"self_attn.q_proj": (256, 256), "self_attn.v_proj": (256, 128), "mlp.down_proj": (512, 256)}
    tensors = {}
    for layer in range(2):
        for name, (size_in, size_out) in sizes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(8, size_in) * 0.05
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(size_out, 8) * 0.05
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    names = sorted(name.rpartition(".")[2] for name in sizes)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "target_modules": names}
    _write_json(folder / "adapter_config.json", {**config, "base_model_name_or_path": "pieces-base", "bias": "none"})
