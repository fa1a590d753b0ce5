"""A stranger's Jinja: it writes what it does with transformers; what would cost too much is refused by its limit."""

from datetime import datetime
from typing import Any

import pytest

from vicuna.conversation import TemplateError
from vicuna.conversation.meter import Meter
from vicuna.conversation.sandbox import ChatTemplate

NOW = datetime(2026, 1, 2)
MESSAGES = [
    {"role": "system", "content": "You are <b>kind</b> & 'brief'."},
    {"role": "user", "content": " What is 1 + 1?\nSay it. "},
    {"role": "assistant", "content": "<think>easy</think>\n\n2 \u65e5\u672c"},
    {"role": "user", "content": "Thanks."},
]
VALUES: dict[str, Any] = {"tools": None, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}

PLAIN = {
    "loop": "{% for m in messages %}{{ loop.index0 }}{{ m['role'] }}{{ m.content | trim }}{{ loop.last }}{% endfor %}",
    "white space": "  {% for m in messages %}\n    {%- if m.role == 'user' %}\n  U\n  {% endif %}\n{% endfor %}\n",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "tojson": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'a': [1, 2.5, none, true]} | tojson }}",
    "macro": "{% macro m(x, y='d') %}[{{ x }}{{ y }}{{ caller() if caller }}]{% endmacro %}{{ m(1) }}"
    "{% call m(2) %}z{% endcall %}",
    "slices": "{% for m in messages[1:] %}{{ m.content[:3] ~ '|' ~ m.content[::-1] }}{% endfor %}",
    "methods": "{% for m in messages %}{{ m.content.split('</think>')[-1].lstrip('\\n').upper() }}{% endfor %}"
    "{{ messages[0].items() | list }}{{ 'x'.join(['a', 'b']) }}{{ '%s-%05d' % ('a', 7) }}{{ '{:>5}'.format('a') }}",
    "filters": "{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user')"
    " | list | length }}{{ 'a b'|title }}{{ [3, 1]|sort }}{{ '<'|e }}{{ 'abc'|replace('b', 'B') }}{{ x|default('d') }}",
    "tests": "{{ messages is iterable and messages is not string and messages[0] is mapping and y is undefined }}",
    "break": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "blocks": "{% set x %}a{{ bos_token }}{% endset %}{{ x * 3 }}{% filter upper %}b{{ x }}{% endfilter %}",
    "loop filter": "{% for m in messages if m.role != 'system' %}{{ m.role }}{% else %}none{% endfor %}",
    "numbers": "{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 10 }}{{ -7 / 2 }}{{ 1 < 2 <= 2 }}{{ 1 in [1, 2] }}{{ 'a' not in 'bc' }}",
    "unpacking": "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ dict(a=1, **{'b': 2}) }}",
    "recursion": "{% for x in [[1], [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
}


@pytest.mark.parametrize("name", PLAIN)
def test_writes_what_transformers_writes(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    expected, _ = render_jinja_template([MESSAGES], chat_template=PLAIN[name], **VALUES)
    given: Any = MESSAGES
    assert ChatTemplate(PLAIN[name], "m").render(given, Meter(), now=NOW, **VALUES) == expected[0]


LIMITED = {
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}"
    "{% endfor %}{% endfor %}",
    "empty loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "loops that take nothing": "{% for a in range(9999) %}{% for b in range(9999) if false %}{% endfor %}{% endfor %}",
    "a long test of a loop": "{% for a in range(99999) if " + " or ".join(["a == -1"] * 100) + " %}{% endfor %}",
    "large range": "{% for a in range(10 ** 9) %}{% endfor %}",
    "repeated text": "{{ 'a' * 10 ** 9 }}",
    "repeated list": "{% set x = 10 ** 9 * [0] %}",
    "powers": "{{ 9 ** 9 ** 9 }}{{ (9 ** 999) ** 999 }}",
    "number of bytes": "{{ (1).from_bytes(('f' * 90000).encode(), 'big') // 3 }}",
    "hexadecimal": "{{ ('f' * 9000)|int(0, 16) }}",
    "doubling": "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by ~": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by join": "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|join %}"
    "{% endfor %}",
    "doubling by blocks": "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% set ns.x = y %}{% endfor %}",
    "doubling lists": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
    "{{ ns.x|tojson }}",
    "replace": "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('a', ns.x) %}"
    "{% endfor %}",
    "method replace": "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', ns.x) %}"
    "{% endfor %}",
    "method join": "{% set s = 'x' * 99999 %}{{ s.join(s) }}",
    "printf": "{{ '%999999999d' % 1 }}",
    "printf by star": "{{ '%*d' % (999999999, 1) }}",
    "printf of floats": "{{ '%.999999999f' % 1 }}",
    "filter format": "{{ '%999999999d'|format(1) }}",
    "str.format": "{{ '{:999999999}'.format(1) }}",
    "str.format nested": "{{ '{:{}}'.format(1, 999999999) }}",
    "str.format_map": "{{ '{a:999999999}'.format_map({'a': 1}) }}",
    "str.format kept": "{% set f = '{:999999999}'.format %}{{ f(1) }}",
    "padding": "{{ 'a'.ljust(999999999) }}",
    "filter center": "{{ 'a'|center(999999999) }}",
    "indent": "{{ 'a\nb'|indent(999999999) }}",
    "tabs": "{{ ('\t' * 999).expandtabs(99999999) }}",
    "json indented": "{{ ([[1] * 999] * 9)|tojson(indent=999999) }}",
    "translate": "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
    "digits": "{{ 1.5|round(999999999) }}",
    "batch": "{{ range(9)|batch(999999999, 'x')|list|length }}",
    "macro that doubles": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "macro that calls itself": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "block that calls itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "deep tuples": "{% set ns = namespace(x=(1,)) %}{% for i in range(9999) %}{% set ns.x = (ns.x,) %}{% endfor %}"
    "{{ {ns.x: 1} }}",
    "sorting": "{% for i in range(9999) %}{% set z = range(9999)|sort %}{% endfor %}",
    "selecting": "{% set r = range(99999) %}{% for i in range(9999) %}{% set z = r|select('odd')|list %}{% endfor %}",
    "searching": "{% set s = 'a' * 99999 %}{% set t = 'a' * 9999 ~ 'b' %}{% for i in range(999) %}{{ t in s }}"
    "{% endfor %}",
    "counting": "{% set s = 'x' * 999999 %}{% for i in range(9999) %}{{ s.count('x') }}{% endfor %}",
    "slicing": "{% set s = 'x' * 999999 %}{% for i in range(9999) %}{% set y = s[1:] %}{% endfor %}",
    "comparing": "{% set a = 'x' * 99999 %}{% set b = 'x' * 99999 %}{% for i in range(9999) %}{{ a == b }}{% endfor %}",
    "changed": "{% set a = 'x' * 99999 %}{% for i in range(99999) %}{{ loop.changed(a) }}{% endfor %}",
    "long attributes": "{{ 'abc'|list|map(attribute='0' ~ '.0' * 100000)|list|length }}",
    "spreading": "{% macro m() %}{{ varargs|length }}{% endmacro %}{% set a = range(9999)|list %}"
    "{% for i in range(9999) %}{{ m(*a) }}{% endfor %}",
    "encodings": "{{ ('\u00fc' * 99999).encode('punycode')|length }}",
    "a text of the template's own": "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "a constant": "{% for i in range(99999) %}{{ '" + "x" * 9999 + "' }}{% endfor %}",
    "each letter with each": "{% for m in messages %}{% for c in m.content * 99 %}{% for d in m.content * 99 %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a constant when compiled": "{{ ('a'|center(999999999))|length }}",
    "source": "x" * 100_001,
    "parts": "{% set a = 1 %}" * 5000,
    "nesting": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
}


@pytest.mark.parametrize("name", LIMITED)
def test_what_costs_too_much_is_refused_by_its_limit(name: str) -> None:
    with pytest.raises(TemplateError, match=r"limit|MAX_RANGE|are read"):
        ChatTemplate(LIMITED[name], "tiny").render(MESSAGES, Meter(), now=NOW, **VALUES)


def test_the_refusal_names_model_limit_and_way_out() -> None:
    with pytest.raises(TemplateError) as raised:
        ChatTemplate(LIMITED["nested loops"], "tiny").render(MESSAGES, Meter(), now=NOW, **VALUES)
    assert "the chat template of tiny takes more than 2,02" in str(raised.value)
    assert str(raised.value).endswith("steps for 4 messages, which is its limit; name another template with --template")


@pytest.mark.parametrize(
    "source",
    [
        "{{ lipsum() }}",
        "{{ 'a'|urlize }}",
        "{{ 'a'|pprint }}",
        "{{ ('<!---->'|safe).striptags() }}",
        "{% include 'x' %}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ namespace(_a=1) }}",
        "{{ raise_exception('x' * 10000) }}",
        "{{ '\\ud800' }}",
    ],
)
def test_what_no_template_needs_is_refused(source: str) -> None:
    with pytest.raises(TemplateError) as raised:
        ChatTemplate(source, "tiny").render(MESSAGES, Meter(), now=NOW, **VALUES)
    assert len(str(raised.value)) < 700


def test_the_date_is_the_one_given() -> None:
    assert ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", "m").render(MESSAGES, Meter(), now=NOW) == "2026-01-02"


def test_after_a_refusal_the_same_template_goes_on() -> None:
    template = ChatTemplate("{% for i in range(messages[0].content|int) %}{{ 'x' * 100 }}{% endfor %}", "m")
    with pytest.raises(TemplateError, match="limit"):
        template.render([{"role": "user", "content": "99999"}], Meter(), now=NOW)
    assert template.render([{"role": "user", "content": "2"}], Meter(), now=NOW) == "x" * 200
