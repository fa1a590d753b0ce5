"""The engine without a model: its replies are a function of prompt and seed, and it checks what it continues."""

import pytest

from tests.serve.builders import make_sampling
from vicuna.errors import UsageError
from vicuna.serve.engines.interface import EngineOptions, EngineRequest
from vicuna.serve.engines.sim import EOS, ByteTokenizer, SimEngine, load

PROMPT = tuple(b"hello")


def make_request(journal: tuple[int, ...] = (), *, seed: int = 0, max_new_tokens: int = 1000) -> EngineRequest:
    """A request for a reply, or for the rest of one."""
    sampling = make_sampling(temperature=1 if seed else 0, seed=seed)
    return EngineRequest("a", PROMPT + journal, len(PROMPT), max_new_tokens, frozenset({EOS}), sampling)


def run(engine: SimEngine, request: EngineRequest) -> tuple[tuple[int, ...], str | None]:
    """The tokens of a reply and its finish reason."""
    engine.submit(request)
    outputs = []
    while engine.is_busy:
        outputs += engine.step()
    return tuple(token for output in outputs for token in output.token_ids), outputs[-1].finish_reason


def test_a_reply_is_a_function_of_prompt_seed_and_variant() -> None:
    engine = load(EngineOptions("length=40"))
    tokens, reason = run(engine, make_request())
    assert reason == "stop" and len(tokens) >= 40
    assert run(load(EngineOptions("length=40")), make_request()) == (tokens, reason)
    assert run(engine, make_request(seed=1)) != (tokens, reason)
    other = load(EngineOptions("length=40,variant=1"))
    assert run(other, make_request()) != (tokens, reason) and other.fingerprint != engine.fingerprint


def test_a_reply_can_be_continued_only_as_it_began() -> None:
    engine = load(EngineOptions(""))
    tokens, _ = run(engine, make_request())
    assert run(engine, make_request(tokens[:9]))[0] == tokens[9:]
    with pytest.raises(AssertionError, match="the journal is not what this engine would have written"):
        engine.submit(make_request((0, *tokens[1:9])))


def test_length_is_counted_from_the_end_of_the_prompt() -> None:
    engine = load(EngineOptions(""))
    tokens, reason = run(engine, make_request(max_new_tokens=10))
    assert (len(tokens), reason) == (10, "length")
    assert run(engine, make_request(tokens[:4], max_new_tokens=10)) == (tokens[4:], "length")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("sped=3", "unknown setting 'sped'; .* did you mean 'speed'"),
        ("length=x", "length is 'x'; it takes a number, 0 or more"),
        ("speed=-1", "speed is '-1'"),
        ("speed=nan", "speed is 'nan'"),
    ],
)
def test_settings_that_are_none(settings: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(EngineOptions(settings))


def test_the_tokenizer_is_bytes_and_two_control_tokens() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer(["é"], add_special_tokens=True)["input_ids"] == [[0xC3, 0xA9]]
    assert tokenizer.decode([0xC3]) == "\ufffd" and tokenizer.decode([0xC3, 0xA9, EOS]) == "é"
    assert len(tokenizer.get_vocab()) == len(tokenizer)
    assert tokenizer.convert_tokens_to_ids("</s>") == tokenizer.eos_token_id == EOS
