"""The comparisons that allow for rounding allow for nothing else."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.rounding import assert_equal_weights, greedy_replies, is_near_tie

PROMPT = [0, 3, 1]
NUM_NEW = 6


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, initializer_range=0.5, **shape)).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    return model


def greedy(model: LlamaForCausalLM, ids: list[int], num_new: int) -> list[int]:
    """Token by token, without `generate` and its cache."""
    new: list[int] = []
    for _ in range(num_new):
        new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


def test_without_near_ties_there_is_one_greedy_reply() -> None:
    model = make_model()
    assert greedy_replies(model, PROMPT, NUM_NEW) == [greedy(model, PROMPT, NUM_NEW)]


def test_each_token_of_a_near_tie_is_followed_to_the_end() -> None:
    model = make_model()
    first = greedy(model, PROMPT, 1)[0]
    twin = (first + 1) % 40
    with torch.no_grad():
        model.lm_head.weight[twin] = model.lm_head.weight[first] * (1 + 1e-6)
    replies = greedy_replies(model, PROMPT, 3)
    expected = [[token, *greedy(model, [*PROMPT, token], 2)] for token in (first, twin)]
    assert all(reply in replies for reply in expected)
    assert len(set(map(tuple, replies))) == len(replies)
    assert {reply[0] for reply in replies} == {first, twin}
    assert len(greedy_replies(model, PROMPT, 3, margin=0.0)) == 1


def test_a_reply_ends_with_its_end_token() -> None:
    model = make_model()
    whole = greedy(model, PROMPT, NUM_NEW)
    end = whole[2]
    assert greedy_replies(model, PROMPT, NUM_NEW, end_ids=[end]) == [whole[: whole.index(end) + 1]]
    twin = (whole[0] + 1) % 40
    with torch.no_grad():
        model.lm_head.weight[twin] = model.lm_head.weight[whole[0]]
    assert [twin] in greedy_replies(model, PROMPT, NUM_NEW, end_ids=[twin])


def test_a_near_tie_is_told_from_a_clear_choice() -> None:
    def choose(logits: torch.Tensor) -> int:
        return int(logits.argmax())

    assert is_near_tie(choose, torch.tensor([0.0, 1.0, 1.00001]))
    assert not is_near_tie(choose, torch.tensor([0.0, 1.0, 1.01]))


def compare(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert_equal_weights({"w": found}, {"w": expected}, rtol=1e-5, atol=1e-7)


def test_weights_in_16_bits_may_be_a_step_apart_here_and_there() -> None:
    weight = torch.linspace(1.0, 1.9, 1000).bfloat16()
    step = 2**-7
    for places, steps, is_equal in ((0, 0, True), (9, 1, True), (11, 1, False), (1, 2, False)):
        other = weight.clone()
        other[:places] += steps * step
        if is_equal:
            compare(other, weight)
        else:
            with pytest.raises(AssertionError):
                compare(other, weight)


def test_weights_in_fp32_have_no_step() -> None:
    weight = torch.linspace(1.0, 1.9, 1000)
    compare(weight * (1 + 5e-6), weight)
    other = weight.clone()
    other[3] *= 1 + 5e-5
    for found in (other, weight.bfloat16()):
        with pytest.raises(AssertionError, match="w"):
            compare(found, weight)
