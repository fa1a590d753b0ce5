"""The sampling parameters that a request may have."""

from typing import Any

import pytest
from pydantic import ValidationError

from vicuna.serve.sampling import Sampling

LIMITS = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 2**64 - 1}


def test_the_ends_of_the_ranges_are_allowed() -> None:
    assert Sampling.model_validate(LIMITS).model_dump() == LIMITS


@pytest.mark.parametrize(
    "change",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"seed": -1}, {"seed": 2**64}, {"min_p": 0.1}],
)
def test_what_is_out_of_range_or_unknown_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(LIMITS | change)


@pytest.mark.parametrize("name", LIMITS)
def test_nothing_may_be_left_out(name: str) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate({key: value for key, value in LIMITS.items() if key != name})
