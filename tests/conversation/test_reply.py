"""Reply tokens become the text that was encoded, and nothing is shown that could still change."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.conversation.builders import TEXTS, all_templates, many
from vicuna.conversation import (
    Message,
    ReplyDecoder,
    Template,
    encode,
    get_template,
)


@all_templates
@many
@given(content=TEXTS, cuts=st.lists(st.integers(1, 5), max_size=30))
def test_decoder_gives_the_reply_back(tokenizer: Any, template: Template, content: str, cuts: list[int]) -> None:
    """Whatever way the tokens arrive, the shown text is the message that was encoded."""
    for stop in (tokenizer.eos_token, *template.stop, *template.stop_tokens):
        if stop in content or content.endswith("\n") or "\ufffd" in content:
            return  # such a reply ends early, or its last character cannot be told from an unfinished one
    encoding = encode([Message("user", "q"), Message("assistant", content)], template, tokenizer)
    start, end = encoding.reply_spans[0]
    ids, shown = encoding.input_ids[start:end], ""
    decoder = ReplyDecoder(template, tokenizer)
    while ids and not decoder.stopped:
        size = cuts.pop() if cuts else 1
        shown += decoder.push(ids[:size])
        ids = ids[size:]
    assert shown + decoder.finish() == content


def test_decoder_holds_back_what_may_become_a_stop_string(bpe_tokenizer: Any) -> None:
    decoder = ReplyDecoder(get_template("chatml"), bpe_tokenizer, stop=["END."])
    ids = [bpe_tokenizer(piece)["input_ids"] for piece in ("one", " E", "ND", ", two ", "EN", "D.", " three")]
    pushed = [decoder.push(piece) for piece in ids]
    assert "".join(pushed) == "one END, two "
    assert pushed[1] == " "
    assert decoder.stopped
    assert decoder.finish() == ""


def test_decoder_never_shows_half_a_character(bpe_tokenizer: Any) -> None:
    decoder = ReplyDecoder(get_template("chatml"), bpe_tokenizer)
    shown = [decoder.push([token]) for token in bpe_tokenizer("🦙")["input_ids"]]
    assert shown[-1] == "🦙"
    assert set(shown[:-1]) == {""}
