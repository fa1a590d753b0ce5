"""`vicuna template`."""

from pathlib import Path

import pytest

from vicuna.template import main


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("vicuna_v1.1", "vicuna_v0", "alpaca", "chatml", "llama-2", "llama-3", "mistral", "zephyr", "gemma", "plain"),
        "hf",
    ]


def test_show_marks_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "chatml"]) == 0
    assert "<|im_start|>assistant\n⟦I am Vicuna, a chat assistant.<|im_end|>⟧\n" in capsys.readouterr().out


def test_show_with_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["show", "chatml"]) == 0
    assert "\033[32mI am Vicuna, a chat assistant.<|im_end|>\033[0m" in capsys.readouterr().out


def test_show_jinja(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "zephyr", "--jinja"]) == 0
    assert "<|assistant|>" in capsys.readouterr().out


def test_show_a_record_with_a_tokenizer(
    tmp_path: Path, bpe_tokenizer_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "r.jsonl"
    record.write_text('{"instruction": "Say hi.", "input": "", "output": "hi"}\n')
    tokenizer = str(bpe_tokenizer_directory)
    assert main(["show", "hf", "--tokenizer", tokenizer, "--record", str(record)]) == 0
    output = capsys.readouterr()
    assert output.out.rstrip().endswith("⟦h i <|im_end|> ⟧Ċ")
    assert "3 trained" in output.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show"], 2, "name a template"),
        (["show", "vicuna"], 1, "did you mean 'vicuna_v"),
        (["show", "hf"], 1, "use it with a tokenizer"),
        (["show", "chatml", "--tokenizer", "nowhere"], 1, "nowhere: no such folder"),
        (["show", "chatml", "--record", "nowhere.jsonl"], 1, "nowhere.jsonl: no such file"),
    ],
)
def test_mistakes(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"), [("", "is empty"), ('{"conversations": []}\n', "its first record has no messages")]
)
def test_a_file_without_a_conversation(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.jsonl").write_text(content)
    assert main(["show", "plain", "--record", str(tmp_path / "r.jsonl")]) == 1
    assert message in capsys.readouterr().err
