"""The boxes in which chat pages show code: a header bar with the language and buttons, and below it the code.

Every year had a box of its own, and some are drawn without `pre`. The code comes out byte for byte; the language is the
one that the author gave, as far as the page tells.

`html` asks for a block of code wherever it meets an element that `is_code`.
"""

import re

from vicuna.data import markdown
from vicuna.data.dom import WITHOUT_WORDS, Element

# Classes with which pages mark a block of code, of every year seen.
CODE_CLASS = re.compile(r"(?:^|\s)(?:hljs|language-\S+|!?whitespace-pre\S*)(?:\s|$)")
LANGUAGE_CLASS = re.compile(r"(?:^|\s)lang(?:uage)?-(\S+)")
# Words of a code box that are not its language.
BOX_WORDS = re.compile(r"copy code|copied!?|copy|edit|wrap|run|collapse|download|always show details", re.IGNORECASE)
LABEL = re.compile(r"[\w+#.\- /]{0,30}")
NO_LANGUAGE = frozenset({"", "text", "code", "plain text"})


def is_code(element: Element) -> bool:
    """Whether an element is a block of code, or a box that holds one and, beside it, nothing but a header bar."""
    if element.tag in ("pre", "code"):
        return element.tag == "pre" or CODE_CLASS.search(element.classes) is not None
    if element.num_code != 1 or element.tag not in ("div", "span", "figure"):
        return False
    code = element.find("code")
    if code is None or not CODE_CLASS.search(code.classes) or element.find("p", "ul", "ol", "table", "blockquote"):
        return False
    return LABEL.fullmatch(_header(element)[0]) is not None


def code_block(element: Element) -> str:
    """The fenced block of an element that `is_code`."""
    code = element if element.tag == "code" else element.find("code")
    if code is None:
        return markdown.code_fence(element.text(), "")
    return markdown.code_fence(code.text(), _language(element, code))


def _language(box: Element, code: Element) -> str:
    """The language in the header bar; without a header, that of the class.

    A bar with an empty label means that the author gave none: the class then holds the highlighter's guess.
    """
    match = LANGUAGE_CLASS.search(code.classes)
    from_class = match[1] if match else ""
    label, has_label = ("", False) if box is code else _header(box)
    if not has_label:
        return from_class
    label = label.lower() if label.lower() == from_class.lower() else label
    if label.lower() in NO_LANGUAGE:
        return from_class if label and label.lower() == from_class else ""
    return from_class if from_class.lower() == label.lower() else label.replace(" ", "-")


def _header(box: Element) -> tuple[str, bool]:
    """The text of a code box outside of its code and buttons, and whether there is a place for a label at all."""
    texts: list[str] = []
    has_label = False
    rest = box.children[::-1]
    while rest:
        node = rest.pop()
        if isinstance(node, str):
            texts.append(node)
            has_label = has_label or bool(BOX_WORDS.sub("", node).strip())
        elif node.tag == "span" and not node.children:
            has_label = True
        elif node.tag not in ("code", "button") and node.tag not in WITHOUT_WORDS:
            rest += node.children[::-1]
    return BOX_WORDS.sub("", " ".join(texts)).strip(), has_label
