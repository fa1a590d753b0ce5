"""Templates are found by name, and their placeholders filled in."""

import pytest

from vicuna.conversation import TemplateError, get_template, template_names
from vicuna.conversation.templates import BOS, EOS


def test_unknown_template_names_the_nearest() -> None:
    with pytest.raises(TemplateError, match=r"unknown conversation template 'vicuna_v1'.*did you mean 'vicuna_v1.1'"):
        get_template("vicuna_v1")


def test_every_template_has_its_name_and_a_source() -> None:
    templates = [get_template(name) for name in template_names()]
    assert [template.name for template in templates] == template_names()
    assert len(set(templates)) == len(templates)
    assert all(template.source for template in templates)


@pytest.mark.parametrize(("bos", "eos", "expected"), [(None, None, ("<s>", "</s>")), ("", "<end>", ("", "<end>"))])
def test_bos_and_eos_are_filled_in(bos: str | None, eos: str | None, expected: tuple[str, str]) -> None:
    template = get_template("llama-2").resolve(bos, eos)
    assert template.user.before == f"{expected[0]}[INST] "
    assert template.reply_end == f" {expected[1]}"
    assert (template.bos_token, template.eos_token) == expected
    assert not {BOS, EOS} & set("".join((*template.user, *template.tool, template.begin, template.reply_end)))
