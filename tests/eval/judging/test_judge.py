"""A judging run: nothing paid twice, no unread verdict scored, no place preferred."""

import errno
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.eval.builders import judge_arguments
from tests.eval.conftest import Answered, Request, Stub
from vicuna.eval.__main__ import main
from vicuna.eval.judging.plan import MAX_PROMPT_BYTES
from vicuna.eval.judging.prompts import parse_sections
from vicuna.io.jsonl import append_jsonl, read_jsonl, write_jsonl


def test_both_orders_and_resume(stub: Stub, questions: Path, answers: Path, tmp_path: Path) -> None:
    output = tmp_path / "judgments.jsonl"
    assert main(judge_arguments(stub, questions, answers, output, "--categories", "a")) == 0
    assert len(stub.requests) == 10, "five questions in two orders"
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    assert len(stub.requests) == 20 and len(set(stub.prompts())) == 20
    rows = list(read_jsonl(output))
    assert Counter(row["order"] for row in rows) == {1: 10, 2: 10}
    for row in rows:
        # The stub always says A: the model that stood there is named.
        sections = parse_sections(row[f"g{row['order']}_user_prompt"])
        winner = row[row[f"g{row['order']}_winner"]]
        assert sections["answer A"].startswith(winner)


def test_pairs_and_single_answers_are_not_kept_in_one_file(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "judgments.jsonl"
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    before = output.read_bytes()
    assert main(judge_arguments(stub, questions, answers, output, mode="single")) == 1
    assert "holds judgments of --mode pair; name another --output" in capsys.readouterr().err
    assert output.read_bytes() == before


@pytest.mark.parametrize("change", [{"usage": 3}, {"usage": {}}, {"judge": []}, {"model_1": None, "usage": "x"}])
def test_a_row_changed_by_hand_is_one_line(
    change: dict[str, object],
    stub: Stub,
    questions: Path,
    answers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "judgments.jsonl"
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    write_jsonl(output, [{**row, **change} for row in list(read_jsonl(output))])
    assert main(judge_arguments(stub, questions, answers, output)) == 1
    assert "a row was changed by hand" in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_ends_the_run_and_keeps_what_was_written(
    stub: Stub,
    questions: Path,
    answers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "judgments.jsonl"
    calls = []

    def full_after_three(path: Path, row: dict[str, object]) -> None:
        calls.append(row)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "full", str(path))
        append_jsonl(path, row)

    with monkeypatch.context() as patch:
        patch.setattr("vicuna.eval.ask.ledger.append_jsonl", full_after_three)
        assert main(judge_arguments(stub, questions, answers, output, "--concurrency", "2")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: 17 of 20 judgments missing") and "no space left on its disk" in error
    assert len(calls) <= 5, "the run goes on paying"
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    assert len(list(read_jsonl(output))) == 20


def test_changed_answer_is_never_mixed_in(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "judgments.jsonl"
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    answers.write_text(answers.read_text().replace("m1 says 3", "m1 says otherwise"))
    assert main(judge_arguments(stub, questions, answers, output)) == 1
    assert "question 3" in capsys.readouterr().err and len(stub.requests) == 20


def test_unreadable_verdict_is_asked_for_once_more_then_set_apart(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(request: Request, _: int) -> Answered | str:
        prompt = request["messages"][1]["content"]
        if "Question 1?" in prompt:
            return "I cannot decide between these."  # for ever
        if "Question 2?" in prompt:
            return "[[8]]" if len(request["messages"]) > 2 else Answered("Score: 8", finish_reason="length")
        return "[[7]]"

    stub.reply = reply
    output = tmp_path / "judgments.jsonl"
    assert main(judge_arguments(stub, questions, answers, output, mode="single")) == 0
    assert "2 of them unreadable" in capsys.readouterr().out
    rows = {(row["question_id"], row["model"]): row for row in read_jsonl(output)}
    assert len(stub.requests) == 20 + 4
    assert rows[1, "m1"]["status"] == "unreadable" and rows[1, "m1"]["score"] is None
    assert rows[1, "m1"]["first_reply"] == "I cannot decide between these."
    assert rows[2, "m1"]["score"] == 8.0 and rows[3, "m1"]["score"] == 7.0
    report = tmp_path / "report.json"
    page = str(tmp_path / "r.html")
    assert main(["report", "--judgments", str(output), "--output", page, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["unscored"]["unreadable_judgments"] == 2
    assert found["models"]["m1"]["num_questions"] == 9 and found["models"]["m1"]["mean"] == pytest.approx(64 / 9)


def test_server_without_schemas(stub: Stub, questions: Path, answers: Path, tmp_path: Path) -> None:
    refused = {"message": "response_format is not supported"}

    def reply(request: Request, _: int) -> Answered | str:
        return Answered(status=400, error=refused) if "response_format" in request else "[[B]]"

    stub.reply = reply
    assert main(judge_arguments(stub, questions, answers, tmp_path / "j.jsonl", "--concurrency", "1")) == 0
    assert len(stub.requests) == 21, "refused once, then known"
    assert "[[A]]" in stub.prompts()[1] and '"verdict"' in stub.prompts()[0], "asked for in the form it can give"


def test_budget_stops_before_it_is_passed(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "j.jsonl"
    price = ("--price-per-1m", "1000", "0", "--max-usd")
    assert main(judge_arguments(stub, questions, answers, output, *price, "0.5")) == 1
    assert "above --max-usd 0.5" in capsys.readouterr().err
    assert not stub.requests and not output.exists()
    assert main(judge_arguments(stub, questions, answers, output, *price, "100")) == 0
    assert sum(row["usage"]["usd"] for row in read_jsonl(output)) == pytest.approx(20 * 10 * 1000 / 1e6)


def test_money_promised_to_calls_in_flight_is_waited_for(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path
) -> None:
    price = ("--price-per-1m", "0", "1000", "--max-tokens", "100")  # at worst 0.20 dollars a call, in truth 0.005
    output = tmp_path / "j.jsonl"
    assert (
        main(judge_arguments(stub, questions, answers, output, *price, "--max-usd", "2.1", "--concurrency", "20")) == 0
    )
    assert len(stub.requests) == 20


def test_what_a_server_without_usage_costs_is_kept(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = {"role": "assistant", "content": "[[A]]"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    stub.reply = lambda _request, _number: Answered(raw=json.dumps(body).encode())
    output = tmp_path / "j.jsonl"
    price = ("--price-per-1m", "0", "1000", "--max-tokens", "100", "--max-usd", "1.9")
    assert main(judge_arguments(stub, questions, answers, output, "--categories", "a", *price)) == 0
    assert sum(row["usage"]["usd"] for row in read_jsonl(output)) == pytest.approx(10 * 100 * 1000 / 1e6)
    assert main(judge_arguments(stub, questions, answers, output, *price)) == 1, "1.00 is spent, 1.00 more is expected"
    assert "above --max-usd 1.9" in capsys.readouterr().err and len(stub.requests) == 10


def test_order_of_the_answer_files_makes_no_new_calls(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path
) -> None:
    output = tmp_path / "j.jsonl"
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    answers.write_text("".join(reversed(answers.read_text().splitlines(keepends=True))))
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    assert len(stub.requests) == 20


def test_first_reply_is_kept_where_the_second_question_is_too_long(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path
) -> None:
    def reply(request: Request, _: int) -> Answered | str:
        if len(request["messages"]) > 2:
            return Answered(status=400, error={"message": "longer than the context of 4096 tokens"})
        return "I cannot decide." if "Question 1?" in request["messages"][1]["content"] else "[[7]]"

    stub.reply = reply
    output = tmp_path / "j.jsonl"
    for _ in range(2):
        assert main(judge_arguments(stub, questions, answers, output, mode="single")) == 0
        assert len(stub.requests) == 20 + 2, "paid once"
    unread = [row for row in read_jsonl(output) if row["status"] == "unreadable"]
    assert [row["judgment"] for row in unread] == ["I cannot decide."] * 2


def test_reply_cut_by_a_filter_is_no_verdict(stub: Stub, questions: Path, answers: Path, tmp_path: Path) -> None:
    stub.reply = lambda _request, _number: Answered("Score: 8", finish_reason="content_filter")
    output = tmp_path / "j.jsonl"
    assert main(judge_arguments(stub, questions, answers, output, mode="single")) == 0
    assert {row["status"] for row in read_jsonl(output)} == {"unreadable"}


def test_row_that_lacks_only_its_line_end_is_kept(stub: Stub, questions: Path, answers: Path, tmp_path: Path) -> None:
    output = tmp_path / "j.jsonl"
    assert main(judge_arguments(stub, questions, answers, output, "--categories", "a")) == 0
    output.write_bytes(output.read_bytes()[:-1])
    assert main(judge_arguments(stub, questions, answers, output)) == 0
    assert len(stub.requests) == 20 == len(list(read_jsonl(output)))


def test_a_prompt_above_the_limit_is_refused_before_anything_is_paid(
    stub: Stub, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "long.jsonl"
    texts = {n: "x" * MAX_PROMPT_BYTES if n == 9 else "short" for n in range(1, 11)}
    write_jsonl(answers, [{"question_id": n, "model_id": "m", "text": text} for n, text in texts.items()])
    assert main(judge_arguments(stub, questions, answers, tmp_path / "j.jsonl", mode="single")) == 1
    said = capsys.readouterr().err
    assert "question 9 with the answers of m" in said and "above the limit of 2,097,152" in said
    assert not stub.requests and not (tmp_path / "j.jsonl").exists()


def test_an_endless_reply_is_not_paid_for_again_as_a_prompt(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path
) -> None:
    stub.reply = lambda _request, _number: "I cannot decide. " * 10_000
    output = tmp_path / "j.jsonl"
    assert main(judge_arguments(stub, questions, answers, output, "--categories", "a", mode="single")) == 0
    assert {len(request["messages"]) for request in stub.requests} == {2}
    assert {row["status"] for row in read_jsonl(output)} == {"unreadable"}


def test_an_echoed_key_is_not_kept(
    stub: Stub, questions: Path, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-echoed-0123456789abcdef")
    stub.reply = lambda _request, _number: "The key is sk-echoed-0123456789abcdef.\n\n[[7]]"
    output = tmp_path / "j.jsonl"
    assert main(judge_arguments(stub, questions, answers, output, "--categories", "a", mode="single")) == 0
    assert "sk-echoed" not in output.read_text() and "[secret]" in output.read_text()
