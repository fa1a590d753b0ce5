from pathlib import Path

from vicuna.bot.demo.examples import (
    AskedQuestion,
    asked_questions,
    best_example,
    cleaned_answer,
    identity_answers,
    rendered_record,
)
from vicuna.eval.answer import Answer
from vicuna.eval.questions import Question
from vicuna.io.jsonl import write_json, write_jsonl

HTML = "<p>So:</p><pre><code class='language-python'>1 + 1</code></pre>"
MARKDOWN = "So:\n\n```python\n1 + 1\n```"


def test_the_first_short_answer_with_code_is_shown(tmp_path: Path) -> None:
    def conversation(name: str, answer: str) -> dict[str, object]:
        turns = [{"from": "human", "value": "How?"}, {"from": "gpt", "value": answer}]
        return {"id": name, "conversations": turns}

    def record(name: str, answer: str) -> dict[str, object]:
        return {"id": name, "messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": answer}]}

    write_json(
        tmp_path / "sample.json",
        [
            conversation("text", "<p>no code</p>"),
            conversation("long", HTML + "<p>x</p>" * 300),
            conversation("dropped", HTML),
            conversation("kept", HTML),
            {"id": "empty", "conversations": [{"from": "gpt", "value": None}]},
        ],
    )
    records = tmp_path / "records.jsonl"
    write_jsonl(records, [record("text", "no code"), record("long", MARKDOWN), record("kept", MARKDOWN)])
    found = cleaned_answer(tmp_path / "sample.json", records)
    assert found is not None
    assert (found.record_id, found.html, found.markdown) == ("kept", HTML, MARKDOWN)
    write_jsonl(records, [record("text", "no code")])
    assert cleaned_answer(tmp_path / "sample.json", records) is None


def test_a_short_record_of_several_rounds_is_rendered(tmp_path: Path) -> None:
    def record(name: str, *answers: str) -> dict[str, object]:
        messages = [{"role": role, "content": text} for answer in answers for role, text in turns(answer)]
        return {"id": name, "messages": messages}

    def turns(answer: str) -> list[tuple[str, str]]:
        return [("user", "How?"), ("assistant", answer)]

    records = tmp_path / "records.jsonl"
    write_jsonl(records, [record("one", "So."), record("long", "So. " * 300, "So."), record("two", "So.", "Thus.")])
    rendering = rendered_record(records, "chatml")
    assert rendering is not None
    learned = [rendering.text[start:end] for start, end in rendering.reply_spans]
    assert learned == ["So.<|im_end|>", "Thus.<|im_end|>"]
    write_jsonl(records, [record("one", "So.")])
    assert rendered_record(records, "chatml") is None


def test_questions_with_their_answers(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "answers.jsonl",
        [{"question_id": number, "model_id": model, "text": "So."} for number in (3, 1) for model in ("a", "b")],
    )
    asked = asked_questions(tmp_path / "answers.jsonl")
    assert [one.question.question_id for one in asked] == [1, 3]
    assert [answer.text for answer in asked[0].answers.values()] == ["So.", "So."]


def test_the_best_example_is_answered_to_its_end() -> None:
    def asked(number: int, *answers: tuple[str, str]) -> AskedQuestion:
        question = Question(number, "How?", "math")
        return AskedQuestion(
            question,
            {
                str(index): Answer(model=str(index), question_id=number, text=text, finish_reason=reason)
                for index, (text, reason) in enumerate(answers)
            },
        )

    cut = asked(1, ("x" * 90, "length"), ("x" * 90, "stop"))
    short = asked(2, ("x", "stop"), ("x" * 90, "stop"))
    good = asked(3, ("x" * 20, "stop"), ("x" * 30, "stop"))
    assert best_example([cut, short, good]) is good
    assert best_example([]) is None


def test_identity_answers() -> None:
    rows = [("Who?", "base", "A."), ("Why?", "base", "B."), ("Who?", "tuned", "C."), ("Why?", "tuned", "D.")]
    served = {"answers": [{"question": q, "model": model, "answer": answer} for q, model, answer in rows]}
    assert identity_answers(served) == [
        ("Who?", {"base": "A.", "tuned": "C."}),
        ("Why?", {"base": "B.", "tuned": "D."}),
    ]
