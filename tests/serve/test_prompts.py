"""Prompts as token ids, and the requests that a worker refuses."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.serve.builders import make_sampling
from vicuna.conversation import Message, encode_prompt, get_template
from vicuna.serve.engines.interface import EngineOptions
from vicuna.serve.engines.sim import load
from vicuna.serve.fleet.protocol import ChatMessage, Submit
from vicuna.serve.prompts import PromptEncoder, Refusal

TEMPLATE = get_template("vicuna_v1.1")
ENGINE = load(EngineOptions("", max_context=300))


@pytest_asyncio.fixture
async def prompts() -> AsyncIterator[PromptEncoder]:
    encoder = PromptEncoder("m", ENGINE, TEMPLATE)
    yield encoder
    encoder.close()


def submit(messages: list[ChatMessage] | None = None, text: str | None = None, ids: list[int] | None = None) -> Submit:
    return Submit(request_id="r", messages=messages, text=text, prompt_ids=ids, sampling=make_sampling())


async def test_ids_pass_text_is_bare_and_messages_are_rendered(prompts: PromptEncoder) -> None:
    assert await prompts.encode(submit(ids=[1, 2])) == [1, 2]
    assert await prompts.encode(submit(text="é")) == [0xC3, 0xA9]
    rendered = encode_prompt([Message("user", "hi")], TEMPLATE, ENGINE.tokenizer)
    assert await prompts.encode(submit([ChatMessage(role="user", content="hi")])) == rendered


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (submit(text=""), "invalid_prompt", "the prompt has no tokens"),
        (submit(ids=[1, 258]), "invalid_prompt", "token id 258 is not in the vocabulary of 258 that model 'm' has"),
        (submit(text="x" * 300), "context_length_exceeded", "has 300 tokens, the context of model 'm' is 300; shorten"),
    ],
)
async def test_what_cannot_run_is_refused(prompts: PromptEncoder, request_: Submit, code: str, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        await prompts.encode(request_)
    assert refused.value.code == code


async def test_the_longest_prompt_leaves_room_for_one_token(prompts: PromptEncoder) -> None:
    assert len(await prompts.encode(submit(text="x" * 299))) == 299


async def test_messages_that_cannot_be_rendered_are_refused() -> None:
    encoder = PromptEncoder("m", ENGINE, get_template("hf"))
    with pytest.raises(Refusal, match="the tokenizer has no chat template") as refused:
        await encoder.encode(submit([ChatMessage(role="user", content="hi")]))
    assert refused.value.code == "invalid_prompt"
    encoder.close()


async def test_what_cannot_fit_is_refused_before_anything_is_made_of_it(prompts: PromptEncoder) -> None:
    def never(_: Submit) -> list[int]:
        raise AssertionError("it was rendered")

    prompts._ids = never  # type: ignore[method-assign,assignment]
    letter = ChatMessage(role="user", content="a")
    long = ChatMessage(role="user", content="a" * (prompts.max_characters + 1))
    for request_, words in (
        (submit([letter] * 12_000), "has 12000 messages, the context of model 'm' is 300; shorten it"),
        (submit(ids=[1] * 300), "has 300 tokens, the context of model 'm' is 300; shorten it"),
        (submit([long]), f"at most {prompts.max_characters} are looked at"),
        (submit(text=long.content), f"has {prompts.max_characters + 1} characters"),
    ):
        with pytest.raises(Refusal, match=words) as refused:
            await prompts.encode(request_)
        assert refused.value.code == "context_length_exceeded"


class Panic(BaseException):
    """As Rust's panics arrive."""


@pytest.mark.parametrize("error", [RecursionError("deep"), MemoryError(), KeyError("x"), Panic("Already borrowed")])
async def test_a_prompt_that_breaks_its_template_costs_that_prompt_only(
    prompts: PromptEncoder, error: BaseException
) -> None:
    def fail(_: Submit) -> list[int]:
        raise error

    own = prompts._ids
    prompts._ids = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(Refusal, match="cannot read this prompt"):
        await prompts.encode(submit(text="x"))
    prompts._ids = own  # type: ignore[method-assign]
    assert await prompts.encode(submit(text="x")) == [120]


def test_a_refusal_is_no_longer_than_its_frame_takes() -> None:
    assert len(str(Refusal("invalid_prompt", "x" * 10_000))) == 2_000
