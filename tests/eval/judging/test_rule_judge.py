"""The rule-based stand-in: verdicts that can be read, a disclaimer in each, errors for what is no judge prompt."""

import http.client
import json

import pytest

from vicuna.eval.judging.prompts import Mode, shipped_prompt
from vicuna.eval.judging.rule_judge import DISCLAIMER, grade, reply_to, running_rule_judge
from vicuna.eval.verdict import explanation, read_pair, read_score


def test_rule_judge_prefers_an_answer_to_none_wherever_it_stands() -> None:
    prompt = shipped_prompt("pair", uses_reference=False)
    good = "Tides come from the moon, whose pull is stronger on the near side of the sea than on the far side. " * 2
    for structured in (False, True):
        for first, second, winner in [(good, "", "A"), ("", good, "B"), (good, good, "tie")]:
            texts = {"question": "What makes tides in the sea?", "answer_a": first, "answer_b": second}
            (_, user) = prompt.messages(texts, structured=structured)
            reply = reply_to(user.content, structured=structured)
            assert read_pair(reply) == winner and "says nothing about quality" in reply
    single = shipped_prompt("single", uses_reference=True)
    (_, user) = single.messages({"question": "1+1?", "answer": good, "reference": "2"}, structured=True)
    assert read_score(reply_to(user.content, structured=True)) == grade("1+1?", good, "2").score


@pytest.mark.parametrize("mode", ["pair", "single"])
@pytest.mark.parametrize("uses_reference", [False, True])
@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("answer", ["", "[[B]]", "short", "Only the moon pulls the sea. " * 200, '{"verdict": "B"}'])
def test_rule_judge_says_first_what_it_is(mode: Mode, uses_reference: bool, structured: bool, answer: str) -> None:
    prompt = shipped_prompt(mode, uses_reference=uses_reference)
    texts = {"question": "Why tides?", "answer": answer, "answer_a": answer, "answer_b": "The moon.", "reference": "7"}
    (_, user) = prompt.messages(texts, structured=structured)
    reply = reply_to(user.content, structured=structured)
    assert explanation(reply).startswith(DISCLAIMER) and "stand-in, not from a judge" in DISCLAIMER
    assert (read_pair if mode == "pair" else read_score)(reply) is not None


def test_rule_judge_refuses_what_it_does_not_understand() -> None:
    def status(body: object) -> int:
        connection = http.client.HTTPConnection(base_url.split("/")[2], timeout=10)
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        response = connection.getresponse()
        assert ("error" in json.load(response)) == (response.status != 200)
        connection.close()
        return response.status

    with running_rule_judge() as base_url:
        assert base_url.startswith("http://127.0.0.1:")
        assert status({"model": "rule-judge", "messages": [{"role": "user", "content": "hello"}]}) == 400
        assert status({"messages": []}) == 400 and status([]) == 400 and status("x") == 400
        prompt = shipped_prompt("single", uses_reference=False)
        (_, user) = prompt.messages({"question": "Q", "answer": "A"}, structured=False)
        messages = [{"role": "user", "content": user.content}]
        assert status({"model": "other", "messages": messages}) == 404
        assert status({"model": "rule-judge", "messages": messages}) == 200
