"""Sampling follows the distribution, and the noise is a function of seed, position and token only."""

import pytest
import torch

from tests.serve.builders import make_sampling
from vicuna.serve.engines.sampler import exponential_noise, sample
from vicuna.serve.sampling import Sampling

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -4.0])


def frequencies(sampling: Sampling, num_draws: int = 3_000) -> torch.Tensor:
    rows = LOGITS.expand(num_draws, -1)
    drawn = sample(rows, [sampling] * num_draws, list(range(num_draws)))
    return torch.bincount(torch.tensor(drawn), minlength=len(LOGITS)) / num_draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_they_should(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(-1)
    # 3,000 draws: the standard error of a frequency is at most 0.009.
    torch.testing.assert_close(frequencies(make_sampling(temperature, seed=3)), expected, atol=0.035, rtol=0)


def test_seeds_are_independent_of_each_other() -> None:
    drawn = sample(LOGITS.expand(3_000, -1), [make_sampling(seed=seed) for seed in range(3_000)], [7] * 3_000)
    got = torch.bincount(torch.tensor(drawn), minlength=5) / 3_000
    torch.testing.assert_close(got, LOGITS.softmax(-1), atol=0.035, rtol=0)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (make_sampling(top_k=2), [0, 1]),
        (make_sampling(top_k=99), [0, 1, 2, 3, 4]),
        (make_sampling(top_p=0.6), [0]),  # 0.64 of the mass is on the first token
        (make_sampling(top_p=0.65), [0, 1]),
        (make_sampling(top_p=0.75, top_k=2), [0, 1]),
        (make_sampling(top_p=0.7, top_k=2), [0]),  # 0.73 of what top-k leaves
        (make_sampling(temperature=0), [0]),
    ],
)
def test_only_the_likeliest_are_kept(sampling: Sampling, kept: list[int]) -> None:
    got = frequencies(sampling)
    expected = torch.zeros(5)
    expected[kept] = LOGITS[kept].softmax(-1)
    torch.testing.assert_close(got, expected, atol=0.035, rtol=0)


def test_top_p_of_a_flat_distribution_looks_beyond_the_first_few_hundred() -> None:
    flat = torch.zeros(1, 5000)
    drawn = {sample(flat, [make_sampling(top_p=0.9, seed=seed)], [0])[0] for seed in range(800)}
    assert len(drawn) > 600


def test_noise_is_a_pure_function_without_visible_structure() -> None:
    like = torch.empty(1000)
    assert torch.equal(exponential_noise(5, 9, like), exponential_noise(5, 9, like))
    noise = torch.stack([exponential_noise(5, position, like) for position in range(1000)])
    assert abs(noise.mean() - 1) < 0.01 and abs(noise.var() - 1) < 0.02
    for other in (
        noise.roll(1, 0),
        noise.roll(1, 1),
        torch.stack([exponential_noise(6, p, like) for p in range(1000)]),
    ):
        correlation = torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 0.005  # five standard errors of a million pairs
    assert not torch.equal(exponential_noise(5, 9, like), exponential_noise(5 + 2**32, 9, like))


@pytest.mark.parametrize(("seed", "position"), [(1, 121), (5, 185)])
def test_noise_is_never_zero(seed: int, position: int) -> None:
    """Where one token's uniform number is the largest of all that there are; zero would choose it at any logits."""
    noise = exponential_noise(seed, position, torch.empty(49_152))
    assert 0 < noise.min() < 2.0**-22
    unlikely = int(noise.argmin())
    logits = torch.zeros(1, 49_152)
    logits[0, 7 if unlikely != 7 else 8] = 30.0
    for sampling in (
        make_sampling(seed=seed),
        make_sampling(0.5, top_p=0.9, seed=seed),
        make_sampling(top_k=5, seed=seed),
    ):
        assert sample(logits, [sampling], [position]) != [unlikely]


def test_a_row_s_choice_does_not_depend_on_the_others() -> None:
    logits = torch.randn(6, 800, generator=torch.Generator().manual_seed(0))
    samplings = [make_sampling(0.9, top_p=0.95, seed=index) for index in range(6)]
    together = sample(logits, samplings, list(range(6)))
    assert together == [sample(logits[row : row + 1], samplings[row : row + 1], [row])[0] for row in range(6)]
    assert sample(logits[:0], [], []) == []
