"""Token counts and prices survive the file, and what is not known stays unknown."""

import pytest

from vicuna.eval.ask.usage import Usage, total


@pytest.mark.parametrize("usage", [Usage(), Usage(3, 4), Usage(3, None, 0.25)])
def test_round_trip(usage: Usage) -> None:
    assert Usage.from_json(usage.to_json()) == usage


def test_a_price_is_written_only_where_there_is_one() -> None:
    assert Usage(3, None).to_json() == {"prompt_tokens": 3, "completion_tokens": None}
    assert Usage(3, 4, 0.0).to_json()["usd"] == 0.0


def test_a_total_without_one_of_its_counts_is_not_known() -> None:
    assert total([3, 4]) == 7
    assert total([3, None]) is None
