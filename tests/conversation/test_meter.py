"""What a chat template spends: the same on every machine, in proportion to what it is given."""

from datetime import datetime

import pytest

from vicuna.conversation.meter import MAX_DEPTH, Meter, SpentError
from vicuna.conversation.sandbox import ChatTemplate

USUAL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def spent(num_messages: int, length: int) -> tuple[int, int]:
    meter = Meter()
    messages = [{"role": "user", "content": "x" * length}] * num_messages
    ChatTemplate(USUAL, "m").render(messages, meter, now=datetime(2026, 1, 2), add_generation_prompt=True)
    return meter.max_steps - meter.steps, meter.max_characters - meter.characters


def test_a_usual_template_spends_in_proportion_and_a_small_part_of_what_it_may() -> None:
    few, more, long = spent(100, 100), spent(400, 100), spent(100, 400)
    assert more[0] == pytest.approx(4 * few[0], rel=0.01)
    assert few[0] < long[0] < 4 * few[0]
    assert spent(100, 100) == few
    meter = Meter()
    meter.begin(100, 10_000)
    assert few[0] < meter.max_steps / 10
    assert few[1] < meter.max_characters / 10


def test_what_may_be_spent_grows_with_what_is_given() -> None:
    one, other = Meter(), Meter()
    one.begin(1, 0)
    other.begin(1001, 10_000)
    assert other.max_steps - one.max_steps == 1000 * 5_000 + 10_000 * 32
    assert other.max_characters - one.max_characters == 1000 * 10_000 + 10_000 * 64


def test_renderings_of_one_conversation_share_their_steps() -> None:
    meter = Meter()
    meter.begin(1, 0)
    meter.step(1_000_000)
    meter.begin(1, 0)
    assert meter.max_steps - meter.steps == 1_000_000
    with pytest.raises(SpentError, match=f"takes more than {meter.max_steps:,} steps for 1 messages"):
        meter.step(meter.steps + 1)


def test_a_list_that_is_in_many_lists_is_walked_once() -> None:
    meter = Meter()
    inner: list[object] = ["x" * 10] * 100
    assert meter.size([inner] * 10) > 10 * 100 * 10
    left = meter.steps
    meter.size([inner] * 10)
    assert left - meter.steps == 10  # the ten places, not their thousand texts
    assert meter.size(10**100) == pytest.approx(101, abs=1)


def test_lists_have_a_depth() -> None:
    meter, value = Meter(), [1]
    for _ in range(MAX_DEPTH - 2):
        value = [value]  # type: ignore[list-item]
    meter.result(value)
    with pytest.raises(SpentError, match=f"deeper than {MAX_DEPTH}"):
        meter.result([[[value]]])


@pytest.mark.parametrize(
    ("operator", "left", "right"),
    [
        ("*", "a", 10**9),
        ("*", 10**9, "a"),
        ("*", [1], 10**9),
        ("%", "%999999999d", 1),
        ("**", 9, 9**9),
        ("*", 2**4000, 2**4000),
    ],
)
def test_an_operator_is_refused_before_it_runs(operator: str, left: object, right: object) -> None:
    with pytest.raises(SpentError, match="limit"):
        Meter().before_operator(operator, left, right)
