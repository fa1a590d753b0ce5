"""Answers cut at the end of a block: no open fence, no heading at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vicuna.data.steps.cut import block_ends, shorten

ANSWER = """First a paragraph
of two lines.

## Steps

1. Open the box.
2. Look inside:
   ```python
   print("one")

   print("two")
   ```
3. Close it.

For example:

```
a

b
```

| a | b |
|---|---|
| 1 | 2 |

**The end**

Done."""


def beginnings(text: str) -> list[str]:
    return [text[:end] for end in block_ends(text)]


def test_blocks_end_where_a_reader_sees_them_end() -> None:
    assert [beginning.split("\n")[-1] for beginning in beginnings(ANSWER)] == [
        "of two lines.",
        "## Steps",
        "1. Open the box.",
        "2. Look inside:",
        "   ```",
        "3. Close it.",
        "For example:",
        "```",
        "| 1 | 2 |",
        "**The end**",
    ]


@pytest.mark.parametrize(
    ("room", "end"),
    [
        (len(ANSWER), "| 1 | 2 |"),  # the whole is not asked for: a heading would be the last
        (ANSWER.index("| a") + 3, "b\n```"),
        (ANSWER.index("```\na") + 3, "3. Close it."),
        (ANSWER.index('   print("two")'), "1. Open the box."),
        (ANSWER.index("1. Open"), "of two lines."),
    ],
)
def test_an_answer_ends_with_the_last_block_that_fits(room: int, end: str) -> None:
    cut = shorten(ANSWER, lambda text: len(text) <= room)
    assert cut is not None
    assert cut.endswith(end)
    assert ANSWER.startswith(cut)


def test_nothing_is_left_when_the_first_block_is_too_long() -> None:
    assert shorten(ANSWER, lambda text: len(text) < 10) is None
    assert shorten("```\n" + "x\n\n" * 50 + "```", lambda text: len(text) < 40) is None


def test_display_formulas_stay_whole() -> None:
    text = "Before.\n\n$$\nx = 1\n\ny = 2\n$$\n\nAfter."
    assert beginnings(text) == ["Before.", "Before.\n\n$$\nx = 1\n\ny = 2\n$$"]


lines = st.sampled_from(["text", "", "  ", "```", "```python", "~~~", "- item", "1. item", "   more", "# head", "so:"])


@given(st.lists(lines, max_size=25), st.integers(0, 80))
def test_a_cut_answer_leaves_no_fence_open(given_lines: list[str], room: int) -> None:
    text = "\n".join(given_lines)
    cut = shorten(text, lambda beginning: len(beginning) <= room)
    if cut is None:
        return
    assert len(cut) <= room
    assert text.startswith(cut)
    assert cut == cut.rstrip() != ""
    opened = ""
    for line in cut.split("\n"):
        if opened and line.strip() == opened:
            opened = ""
        elif not opened and line.startswith(("```", "~~~")):
            opened = line[:3]
    assert not opened
