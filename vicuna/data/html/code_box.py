"""The boxes in which chat pages show code, as fenced blocks: a header bar with language and buttons, then the code.

Each year's pages have another box, some without `pre`. The code comes out byte for byte; the language is the one that
the author gave, as far as the page shows it.
"""

import re

from vicuna.data.html import markdown
from vicuna.data.html.dom import SKIPPED_TAGS, Element

# Classes with which pages mark a block of code, of every year seen.
CODE_CLASS = re.compile(r"(?:^|\s)(?:hljs|language-\S+|!?whitespace-pre\S*)(?:\s|$)")
LANGUAGE_CLASS = re.compile(r"(?:^|\s)lang(?:uage)?-(\S+)")
# Texts of a code box that are not its language; the first also where the page has lost the button around it.
COPY_CODE = re.compile(r"(?:copy code|copied!)$", re.IGNORECASE)
BUTTON_WORDS = frozenset({"copied", "copy", "edit", "wrap", "run", "collapse", "download", "always show details"})
LABEL = re.compile(r"[\w+#.\- /]{0,30}")
NO_LANGUAGE_LABELS = frozenset({"", "text", "code", "plain text"})
NOT_IN_HEADER = ("p", "ul", "ol", "dl", "table", "blockquote", "hr", "img", "h1", "h2", "h3", "h4", "h5", "h6", "math")


def is_block(code: Element) -> bool:
    """Whether a `code` element is a block of code, and not inline code."""
    return CODE_CLASS.search(code.classes) is not None


def is_box(element: Element) -> bool:
    """Whether an element has one block of code in it and, beside it, nothing but a header bar."""
    if element.num_code != 1 or element.tag not in ("div", "span", "figure"):
        return False
    code = element.find("code")
    if code is None or not is_block(code) or element.find(*NOT_IN_HEADER):
        return False
    label, _ = header(element)
    if element.find("pre") is None:
        return is_label(label, code)
    return label.lower() in ("", class_language(code).lower())  # other words may be text above the code


def is_label(text: str, code: Element) -> bool:
    """Whether a header's text can be the name of a language."""
    return LABEL.fullmatch(text) is not None or text == class_language(code)


def fenced(box: Element, code: Element, head: tuple[str, bool] | None = None) -> str:
    """The fenced block of the code in a box.

    Args:
        box: may be the `code` element itself.
        head: the box's `header`, if it is known.
    """
    if box is code:
        return markdown.code_fence(code.text(), class_language(code))
    return markdown.code_fence(code.text(), _language(code, *(head or header(box))))


def _language(code: Element, label: str, has_label: bool) -> str:
    """The language in the header bar; without a header, that of the class.

    A bar with an empty label means that the author gave none: the class then holds the highlighter's guess.
    """
    from_class = class_language(code)
    if not has_label:
        return from_class
    label = label.lower() if label.lower() == from_class.lower() else label
    if label.lower() in NO_LANGUAGE_LABELS:
        return from_class if label and label.lower() == from_class else ""
    return from_class if from_class.lower() == label.lower() else label.replace(" ", "-")


def class_language(code: Element) -> str:
    """The language that the class names, or the highlighter guessed."""
    match = LANGUAGE_CLASS.search(code.classes)
    return match[1] if match else ""


def header(box: Element) -> tuple[str, bool]:
    """The text of a code box outside of its code and buttons, and whether there is a place for a label at all."""
    texts: list[str] = []
    has_label = False
    rest = box.children[::-1]
    while rest:
        node = rest.pop()
        if isinstance(node, str):
            text = COPY_CODE.sub("", node.strip())
            if text and text.lower() not in BUTTON_WORDS:
                texts.append(text)
                has_label = True
        elif node.tag == "span" and not node.children:
            has_label = True
        elif node.tag != "code" and node.tag not in SKIPPED_TAGS:
            rest += node.children[::-1]
    return " ".join(texts), has_label
