"""The language of a conversation: found in prose, not in code; never guessed from too little."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.builders import record
from vicuna.data.step_kinds import Drop, Keep
from vicuna.data.steps.language import NOT_PROSE, PROSE, language_of, language_step, prose
from vicuna.errors import UsageError

CODE = "```python\nfor index in range(10):\n    print(index, names[index])\n```"


TEXTS = {
    "en": "Could you please tell me how the tides are made by the moon, and why there are two of them every day?",
    "de": "Kannst du mir bitte erklären, wie der Mond die Gezeiten macht und warum es zweimal am Tag Flut gibt?",
    "fr": "Peux-tu m'expliquer comment la lune produit les marées, et pourquoi il y en a deux par jour ?",
    "es": "¿Puedes explicarme cómo la luna produce las mareas y por qué hay dos cada día en la costa?",
    "ru": "Объясни, пожалуйста, как луна вызывает приливы и почему их бывает два в день?",
    "zh": "请解释一下月亮是怎么引起潮汐的，为什么每天有两次涨潮？",
    "ja": "月がどのようにして潮の満ち引きを起こすのか、説明してください。",
    "ko": "달이 어떻게 조수를 일으키는지, 왜 하루에 두 번인지 설명해 주세요.",
    "ar": "من فضلك اشرح لي كيف يسبب القمر المد والجزر ولماذا يحدث ذلك مرتين كل يوم",
}


def language(*turns: str) -> object:
    outcome = language_step().run(record(*turns))
    assert isinstance(outcome, Keep)
    return outcome.record.extra["language"]


@pytest.mark.parametrize(("code", "text"), TEXTS.items())
def test_languages_are_told_apart(code: str, text: str) -> None:
    assert language(f"u: {text}", "a: 42") == code
    assert language("u: ok", f"a: {text}\n\n{CODE * 20}") == code
    assert language("s: You answer questions in English and you are always kind.", f"u: {text}", f"a: {text}") == code


def test_capitals_are_read_like_other_letters() -> None:
    given = record(f"u: {TEXTS['de'].upper()}", "a: OK")
    assert language_of(given, lambda text: (text, 1.0))[0].startswith("kannst du mir bitte")


def test_a_guess_is_no_finding() -> None:
    given = record(f"u: {TEXTS['en']}", "a: 42")
    assert language_of(given, lambda _: ("nl", 0.49)) == ("und", 0.49)
    assert language_of(given, lambda _: ("nl", 0.5)) == ("nl", 0.5)


@pytest.mark.parametrize(
    "turns",
    [
        ("u: hi", "a: hello"),
        ("u: Danke", "a: 42"),
        ("u: 2 + 2?", "a: 4"),
        (f"u: {CODE}", f"a: {CODE}"),
        ("u: https://www.beispiel.de/eine/seite/mit/langem/namen", "a: 😀😀😀"),
        ("u: foo_bar(baz_qux) == self.names[index];", "a: `Vielen Dank für die schönen Blumen`"),
        ("u: \ud800\0", "a: \n\t"),
    ],
)
def test_too_little_prose_is_undetermined_and_stays(turns: tuple[str, ...]) -> None:
    assert language(*turns) == "und"
    assert isinstance(language_step(keep=["ko"]).run(record(*turns)), Keep)
    assert isinstance(language_step(skip=["und"]).run(record(*turns)), Drop)


def test_keep_and_skip() -> None:
    german, english = (record(f"u: {TEXTS[code]}", f"a: {TEXTS[code]}") for code in ("de", "en"))
    assert isinstance(language_step(keep=["en", "fr"]).run(english), Keep)
    outcome = language_step(keep=["en", "fr"]).run(german)
    assert isinstance(outcome, Drop)
    assert outcome.finding.rule == "language"
    assert outcome.finding.evidence.startswith("de (")
    assert isinstance(language_step(skip=["de"]).run(german), Drop)
    assert isinstance(language_step(skip=["de"]).run(english), Keep)


def test_wrong_codes_are_named() -> None:
    with pytest.raises(UsageError, match="language 'english' is unknown"):
        language_step(keep=["english"])
    with pytest.raises(UsageError, match="language 'xx' is unknown"):
        language_step(skip=["xx"])
    with pytest.raises(UsageError, match="'de' is both kept and skipped"):
        language_step(keep=["en", "de"], skip=["de"])


def test_every_turn_has_a_part_in_the_sample() -> None:
    given = record(*(f"{'ua'[turn % 2]}: turn{turn} " + "word " * 100_000 for turn in range(6)))
    sample = prose(given)
    assert all(f"turn{turn}" in sample for turn in range(6))
    assert len(sample) < 1000
    assert prose(record("u: see https://a.b/c and `code` <b> x </b> a_b", "a: y")) == "see and x y"


@given(
    st.lists(
        st.sampled_from(["a", "foo", " b", "`", "<b>", "<", ">", "_", "(", "https://", "http://x", " ", "\n", "中"])
    )
)
def test_prose_is_what_removing_the_rest_leaves(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert " ".join(PROSE.findall(text)).rstrip(" ") == re.sub(NOT_PROSE, " ", text).rstrip(" ")
