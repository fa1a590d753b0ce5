"""Private data becomes placeholders, or the record is dropped; the text around stays, letter by letter."""

import pytest

from tests.data.builders import record, turns
from tests.data.privacy.builders import RANDOM, seconds_of_search
from vicuna.data.privacy.step import privacy_step
from vicuna.data.step_kinds import Drop, Keep


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Phone: 13719206018\nMail: a.b@uni.edu", "Phone: <PHONE>\nMail: <EMAIL>"),
        ("Tel. 030 901820, Fax: 030/901821", "Tel. <PHONE>, Fax: 030/901821"),
        ("[me@x.org](mailto:me@x.org)", "[<EMAIL>](mailto:<EMAIL>)"),
        ("http://52.94.236.248:8080/a and 52.94.236.0/24", "http://<IP_ADDRESS>:8080/a and <IP_ADDRESS>/24"),
        ("52.94.236.248,52.94.236.249", "<IP_ADDRESS>,<IP_ADDRESS>"),
        ("4539148803436467,123", "<CARD>,123"),
        ("电话：13719206018", "电话：<PHONE>"),
        ("call me at 868 267 1956", "call me at <PHONE>"),
        ("1-413-268-1956", "1-<PHONE>"),
        ("from 2a00:1450:4001:82b::200e: timeout", "from <IP_ADDRESS>: timeout"),
        (f"AWS_SECRET_ACCESS_KEY={RANDOM[:40]}", "AWS_SECRET_ACCESS_KEY=<KEY>"),
        (f"https://hooks.slack.com/services/T0Q7Z2XVN/B9LRT4WKC/{RANDOM[:24]}", "https://hooks.slack.com/<KEY>"),
    ],
)
def test_the_text_around_stays(text: str, expected: str) -> None:
    outcome = privacy_step("replace").run(record(f"u: {text}", "a: r"))
    assert isinstance(outcome, Keep)
    assert turns(outcome.record)[0] == f"u: {expected}"


def test_findings_count_and_never_quote() -> None:
    given = record("s: ask bob@x.org", "u: a@x.org b@x.org 52.94.236.248", "a: c@x.org", "u: no", "a: none")
    outcome = privacy_step("replace").run(given)
    assert isinstance(outcome, Keep)
    assert turns(outcome.record) == [
        "s: ask <EMAIL>",
        "u: <EMAIL> <EMAIL> <IP_ADDRESS>",
        "a: <EMAIL>",
        "u: no",
        "a: none",
    ]
    assert [(finding.rule, finding.evidence, finding.turn) for finding in outcome.repairs] == [
        ("email", "1 in this turn", 0),
        ("email", "2 in this turn", 1),
        ("ip_address", "1 in this turn", 1),
        ("email", "1 in this turn", 2),
    ]
    again = privacy_step("replace").run(outcome.record)
    assert again == Keep(outcome.record)


def test_a_record_may_be_dropped_instead() -> None:
    step = privacy_step("drop")
    outcome = step.run(record("u: q", "a: write to a@x.org or 52.94.236.248"))
    assert isinstance(outcome, Drop)
    assert (outcome.finding.rule, outcome.finding.evidence, outcome.finding.turn) == ("email", "1 in this turn", 1)
    assert isinstance(step.run(record("u: q", "a: write to user@example.com")), Keep)
    assert "the record was dropped" in step.rules["email"]
    assert "<EMAIL>" in privacy_step("replace").rules["email"]


def test_lone_surrogates_are_searched() -> None:
    assert seconds_of_search("\ud800 1234567 a@") < 2
