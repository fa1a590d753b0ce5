"""What cannot be planned is refused in one line."""

import pytest

from vicuna.train.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --model DIR or --model-shape NAME, one of the two"),
        (["--model-shape", "llama-13", "--gpu", "l4"], "--model-shape llama-13: .*did you mean 'llama-13b'"),
        (["--model-shape", "llama-7b", "--gpu", "a100:8"], "--gpu a100: not a GPU that is known here"),
        (["--model-shape", "llama-7b", "--gpu", "l4:x"], "--gpu l4:x: give a kind and a number"),
        (["--model-shape", "llama-7b", "--num-tokens", "5"], "--num-conversations and --num-tokens go together"),
        (["--model-shape", "llama-7b", "--data", "x.jsonl"], "counted with the tokenizer of --model DIR"),
        (["--model", "missing", "--gpu", "l4"], "missing"),
        (["--model-shape", "llama-7b", "--supervised-share", "2"], "--supervised-share 2.0 must be"),
        (["--model-shape", "llama-7b", "--num-conversations", "9", "--num-tokens", "9"], "less than two for each"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    import re

    assert main(["--plan", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error), error
