"""Text to markup, by one engine: what is not markup yet is escaped, in every template and in every `Markup.format`.

A template stands beside the module that fills it in, under its path in the package: `data/look/rule.html`. What comes
out is `Markup`, a string that no template escapes again; `Markup(text)` vouches for a text that is markup already.
"""

import functools
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    import jinja2

__all__ = ["Markup", "fill"]


def fill(template: str, **values: object) -> Markup:
    """A template with its values.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    return Markup(_environment().get_template(template).render(values))


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2  # here, because it takes longer than what a light command takes in all

    return jinja2.Environment(
        loader=jinja2.PackageLoader("vicuna", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
