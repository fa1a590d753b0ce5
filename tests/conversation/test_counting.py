"""Counts without tokenizing twice are the counts of `encode`, for every template and every kind of tokenizer."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from vicuna.conversation import Message, TokenCounter, encode, get_template, template_names
from vicuna.conversation.tokens import Fragment, encoder_for
from vicuna.conversation.words import words_of

many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# Characters that regular expressions of several makers do not agree about, and those that tokenizers treat apart.
ODD = [*"\r\t\x00▁", "\x1c", "\x85", "\xa0", "\u180e", "\u200b", "\u2028", "\u3000", "\ufeff", "'s", "1234"]
WORDS = [
    "the",
    " the",
    "  the",
    "def f():",
    "    return x",
    "\n",
    "\n\n",
    " ",
    "   ",
    ".",
    "!!",
    "naïve",
    "日本語",
    "🦙",
]
MARKS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "USER:", "[INST]", "<0x0A>"]
TEXTS = st.lists(st.one_of(st.sampled_from([*WORDS, *ODD, *MARKS]), st.text(max_size=4)), max_size=12).map("".join)
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), TEXTS), min_size=1, max_size=6
)


def changed(tokenizer: Any, folder: Any, **parts: Any) -> Any:
    """The same tokenizer with other parts in its description."""
    from transformers import PreTrainedTokenizerFast

    described = json.loads(tokenizer.backend_tokenizer.to_str())
    for name, value in parts.items():
        described[name] = value
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
    )
    fast.save_pretrained(folder)
    return fast


def split(regex: str) -> dict[str, Any]:
    part = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [part, byte_level(use_regex=False)]}


def byte_level(*, use_regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


@pytest.fixture(scope="session")
def tokenizers(sentencepiece_tokenizer: Any, bpe_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("kinds")
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level()]}
    return {
        "sentencepiece": sentencepiece_tokenizer,
        "legacy": changed(
            sentencepiece_tokenizer,
            folder / "legacy",
            normalizer={"type": "Sequence", "normalizers": [prepend, spaces]},
            pre_tokenizer=None,
        ),
        "bpe": bpe_tokenizer,
        "digits": changed(bpe_tokenizer, folder / "digits", pre_tokenizer=digits),
        "llama-3": changed(bpe_tokenizer, folder / "llama-3", pre_tokenizer=split(LLAMA_3)),
        "unknown": changed(bpe_tokenizer, folder / "unknown", normalizer={"type": "NFKC"}),
    }


KINDS = ["sentencepiece", "legacy", "bpe", "digits", "llama-3", "unknown"]


@pytest.mark.parametrize("template", [name for name in template_names() if name != "hf"])
@pytest.mark.parametrize("kind", ["sentencepiece", "bpe"])
@many
@given(conversations=st.lists(MESSAGES, min_size=1, max_size=3))
def test_counts_are_those_of_the_trainer(
    tokenizers: Any, kind: str, template: str, conversations: list[list[Message]]
) -> None:
    check(get_template(template), tokenizers[kind], conversations)


@pytest.mark.parametrize("kind", KINDS)
@settings(parent=many, max_examples=150)
@given(conversations=st.lists(MESSAGES, min_size=1, max_size=3))
def test_counts_are_those_of_the_trainer_for_every_kind(
    tokenizers: Any, kind: str, conversations: list[list[Message]]
) -> None:
    check(get_template("vicuna_v1.1"), tokenizers[kind], conversations)


@many
@given(contents=st.lists(TEXTS, min_size=1, max_size=6))
def test_counts_with_the_tokenizers_own_template(bpe_tokenizer: Any, contents: list[str]) -> None:
    turns = [Message("user" if at % 2 == 0 else "assistant", content) for at, content in enumerate(contents)]
    check(get_template("hf"), bpe_tokenizer, [turns])


def check(template: Any, tokenizer: Any, conversations: list[list[Message]]) -> None:
    counter, prepared = TokenCounter(template, tokenizer), TokenCounter(template, tokenizer)
    prepared.prepare(conversations)
    for messages in conversations * 2:  # the second time it remembers
        assert counter(messages) == prepared(messages) == len(encode(messages, template, tokenizer).input_ids)


def test_kinds_whose_words_are_sure_are_known(tokenizers: Any) -> None:
    assert [kind for kind in KINDS if words_of(tokenizers[kind]) is None] == ["unknown"]


@pytest.mark.parametrize("kind", KINDS[:-1])
@many
@given(text=TEXTS)
def test_the_words_of_a_text_are_the_text(tokenizers: Any, kind: str, text: str) -> None:
    words = words_of(tokenizers[kind])
    assert words is not None
    assert "".join(words.pattern.findall(text)) == text
    if words.can_divide(text):
        assert "".join(map(words.written, words.cut(text))) == text


def test_words_are_cut_before_spaces(tokenizers: Any) -> None:
    text = "one  two.\n\n three "
    for kind, expected in (
        ("sentencepiece", ["one", "  two.", "\n", "\n", " three", " "]),
        ("bpe", ["one", "  two.\n\n three", " "]),
    ):
        words = words_of(tokenizers[kind])
        assert words is not None
        assert words.pattern.findall(text) == expected


def test_nothing_is_tokenized_twice(sentencepiece_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = get_template("vicuna_v1.1")
    counter = TokenCounter(template, sentencepiece_tokenizer)
    encoder = encoder_for(template, sentencepiece_tokenizer)
    given_texts: list[str] = []
    length, lengths = encoder.length, encoder.lengths

    def watched(run: Fragment) -> int:
        given_texts.append(run.text)
        return length(run)

    def all_watched(texts: Sequence[str], separator: str) -> list[int]:
        given_texts.extend(texts)
        return lengths(texts, separator)

    monkeypatch.setattr(encoder, "length", watched)
    monkeypatch.setattr(encoder, "lengths", all_watched)
    words = [Message("user", "one two three"), Message("assistant", "four five six")]
    counter(words)
    assert given_texts
    given_texts.clear()
    counter([*words, *words])
    assert len(given_texts) == 1  # `USER:` at the start of a line, which was at the start of the text before
    given_texts.clear()
    counter([*words, *words, *words])
    assert not given_texts
