"""Page HTML in turns: which turns are read as HTML, and which stay byte for byte."""

from tests.data.builders import default_step, findings, kept, record, run_step


def test_html_answers_become_markdown_and_questions_stay() -> None:
    question = "u: \t<p>why <b>this</b>?</p>\n\tvector<int> __init__  "
    assert kept(run_step("html", question, "a: <p>Because <em>so</em>.</p>")) == [question, "a: Because *so*."]


def test_answers_of_other_shapes_are_never_read_as_html() -> None:
    given = record("u: a paragraph in HTML", "a: <p>Hello</p>", shape="alpaca")
    assert kept(default_step("html").run(given)) == ["u: a paragraph in HTML", "a: <p>Hello</p>"]


def test_html_nested_beyond_sense_drops_the_record() -> None:
    assert findings(run_step("html", "u: q", "a: " + "<div>" * 500 + "</div>")) == [("broken_html", 1)]
