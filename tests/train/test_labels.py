"""For every template and both kinds of tokenizer: the learned tokens spell the replies and their end marks, no more."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conversation.test_tokens import OWN, TEXTS, all_templates, tokenizer
from vicuna.conversation import Conversation, Message, Template, render
from vicuna.train.batches.encode import encode_record

__all__ = ["tokenizer"]  # the fixture: sentencepiece and byte-level BPE in turn

rounds_of_texts = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)


def learned_texts(conversation: Conversation, template: Template, tokenizer: Any) -> list[str]:
    """The text of every unbroken run of learned tokens."""
    ids, is_supervised = encode_record(conversation, template, tokenizer, "here")
    runs: list[list[int]] = []
    for position, token in enumerate(ids):
        if is_supervised[position]:
            if position == 0 or not is_supervised[position - 1]:
                runs.append([])
            runs[-1].append(token)
    # Behind a line break, because a decoder drops the space at the beginning of a text.
    anchor = tokenizer("\n", add_special_tokens=False)["input_ids"]
    texts = [
        tokenizer.decode(anchor + run, skip_special_tokens=False, clean_up_tokenization_spaces=False) for run in runs
    ]
    return [text.lstrip(" ").removeprefix("\n") for text in texts]


@all_templates
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=rounds_of_texts, system=st.none() | TEXTS, num_context_rounds=st.integers(0, 2))
def test_learned_tokens_are_the_replies_and_nothing_else(
    tokenizer: Any, template: Template, rounds: list[tuple[str, str]], system: str | None, num_context_rounds: int
) -> None:
    num_context_rounds = min(num_context_rounds, len(rounds) - 1)
    turns = [Message(role, text) for pair in rounds for role, text in zip(("user", "assistant"), pair, strict=True)]
    messages = (*[Message("system", system)] * (system is not None), *turns)
    conversation = Conversation("id", messages, {"context_messages": 2 * num_context_rounds})
    rendering = render(messages, template, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token)
    expected = [rendering.text[start:end] for start, end in rendering.reply_spans][num_context_rounds:]
    assert learned_texts(conversation, template, tokenizer) == expected


def test_the_templates_are_all_there() -> None:
    assert {"vicuna_v1.1", "chatml", "llama-2", "llama-3", "mistral", "gemma"} <= {template.name for template in OWN}


def test_a_mask_that_is_one_token_off_is_seen(bpe_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vicuna.train.batches import encode

    encode = encode.encode

    def shifted(*arguments: Any) -> Any:
        encoding = encode(*arguments)
        encoding.labels.insert(0, encoding.labels.pop())
        return encoding

    conversation = Conversation("id", (Message("user", "a question"), Message("assistant", "the reply")))
    template = next(template for template in OWN if template.name == "vicuna_v1.1")
    before = learned_texts(conversation, template, bpe_tokenizer)
    monkeypatch.setattr(encode, "encode", shifted)
    assert learned_texts(conversation, template, bpe_tokenizer) != before
