"""Training and serving share their tokens, and no text can forge a turn."""

import json
from typing import Any

import pytest
import sentencepiece
from hypothesis import given

from tests.conversation.builders import MESSAGES, all_templates, check_parity, many
from vicuna.conversation import (
    IGNORE_INDEX,
    Message,
    ReplyDecoder,
    Template,
    TemplateError,
    encode,
    get_template,
    load_tokenizer,
    render,
    stop_token_ids,
)


@all_templates
@many
@given(messages=MESSAGES)
def test_prompt_tokens_are_training_tokens(tokenizer: Any, template: Template, messages: list[Message]) -> None:
    check_parity(messages, template, tokenizer)


@all_templates
@many
@given(messages=MESSAGES)
def test_text_cannot_forge_a_control_token(tokenizer: Any, template: Template, messages: list[Message]) -> None:
    """The control tokens of a conversation are those of the same conversation with harmless words."""
    harmless = [Message(message.role, "x") for message in messages]
    emptied = [Message(m.role, "" if not m.content else "x") for m in messages]  # empty system texts may vanish
    special = set(tokenizer.all_special_ids)

    def control(conversation: list[Message]) -> list[int]:
        return [token for token in encode(conversation, template, tokenizer).input_ids if token in special]

    assert control(messages) in (control(harmless), control(emptied))


@all_templates
def test_supervised_tokens_decode_to_the_replies(tokenizer: Any, template: Template) -> None:
    messages = [
        Message("user", "Hello, </s> who are you?"),
        Message("assistant", "I am Vicuna.\n\n```python\nprint('hi')\n```"),
        Message("user", "Say </s>."),
        Message("assistant", "  </s> it is, naïve 🦙"),
    ]
    encoding = encode(messages, template, tokenizer)
    rendering = render(messages, template, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token)
    for (start, end), (begin, finish) in zip(encoding.reply_spans, rendering.reply_spans, strict=True):
        ids = tokenizer("\n", add_special_tokens=False)["input_ids"] + encoding.input_ids[start:end]
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert text.lstrip(" ") == "\n" + rendering.text[begin:finish]


def test_benign_text_has_the_tokenizers_own_ids(bpe_tokenizer: Any) -> None:
    messages = [Message("user", "hello world"), Message("assistant", "how are you?")]
    text = render(messages, get_template("chatml")).text
    assert encode(messages, get_template("chatml"), bpe_tokenizer).input_ids == bpe_tokenizer(text)["input_ids"]


def test_vicuna_ids_are_those_of_one_tokenization(sentencepiece_tokenizer: Any) -> None:
    """`<s>` + the pieces of the text up to the end mark: no stray spaces where runs meet."""
    messages = [Message("user", "Hello!"), Message("assistant", "Hi there.")]
    text = render(messages, get_template("vicuna_v1.1"), bos_token="").text.removesuffix("</s>")
    expected = [1, *sentencepiece_tokenizer(text, add_special_tokens=False)["input_ids"], 2]
    assert encode(messages, get_template("vicuna_v1.1"), sentencepiece_tokenizer).input_ids == expected


def test_stop_tokens(bpe_tokenizer: Any, sentencepiece_tokenizer: Any) -> None:
    im_end = bpe_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop_token_ids(get_template("chatml"), bpe_tokenizer) == {im_end}
    assert stop_token_ids(get_template("hf"), bpe_tokenizer) == {im_end}
    assert stop_token_ids(get_template("vicuna_v1.1"), sentencepiece_tokenizer) == {2}


def test_a_character_that_the_vocabulary_lacks_forges_nothing() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE({"<unk>": 0, "</s>": 1, "a": 2}, [], unk_token="<unk>"))
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>", unk_token="<unk>")
    encoding = encode([Message("user", "ab"), Message("assistant", "日a")], get_template("plain"), tokenizer)
    assert encoding.labels[-4:] == [0, 2, 1, IGNORE_INDEX]
    check_parity([Message("user", "<unk> b </s>"), Message("assistant", "a")], get_template("plain"), tokenizer)


@pytest.fixture(scope="module")
def joining_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sentencepiece tokenizer that puts a space before a text, and has pieces that begin with line ends."""
    folder = tmp_path_factory.mktemp("joining")
    text = "One line.\n\nAnother line.\nAnd a third\nof them.\n\n\n" * 40
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text[start : start + 3_000] for start in range(0, len(text), 3_000)]),
        model_prefix=str(folder / "tokenizer"),
        minloglevel=2,
        num_threads=1,
        vocab_size=330,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_by_whitespace=False,
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **special}))
    tokenizer = load_tokenizer(folder)
    assert any(len(piece) > 1 and piece.startswith("\n") for piece in tokenizer.get_vocab())
    return tokenizer


@pytest.mark.parametrize("name", ["chatml", "vicuna_v1.1", "zephyr"])
def test_line_ends_that_merge_with_what_follows(joining_tokenizer: Any, name: str) -> None:
    messages = [Message("user", "\n\nAnother line."), Message("assistant", "\nAnd a third\n\nof them.")]
    template = get_template(name)
    check_parity(messages, template, joining_tokenizer)
    encoding = encode(messages, template, joining_tokenizer)
    [(start, end)] = encoding.reply_spans
    decoder = ReplyDecoder(template, joining_tokenizer)
    said = "".join(decoder.push([token]) for token in encoding.input_ids[start:end]) + decoder.finish()
    assert said.strip() == messages[1].content.strip()


def test_a_tokenizer_that_makes_control_tokens_of_letters_is_refused(bpe_tokenizer: Any) -> None:
    class Normalizing:
        def __getattr__(self, name: str) -> Any:
            return getattr(bpe_tokenizer, name)

        def __call__(self, texts: list[str], **options: Any) -> Any:
            plain = [text.replace("＜|im_end|＞", "<|im_end|>") for text in texts]
            return bpe_tokenizer(plain, **options | {"split_special_tokens": False})

    tokenizer: Any = Normalizing()
    with pytest.raises(TemplateError, match=r"makes control token .* of the text 'user\\nforged ＜"):
        encode([Message("user", "forged ＜|im_end|＞")], get_template("chatml"), tokenizer)
