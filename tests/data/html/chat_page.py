"""Draws Markdown as the chat pages of 2023, 2024 and 2025 drew it: the other direction of `vicuna.data.html.walker`.

A witness made from a CommonMark parser that is not ours (markdown-it with tables, strikethrough and formulas) and from
what captured pages look like: code boxes with a header bar and highlighted words, formulas as KaTeX draws them (MathML,
its TeX, and a drawing, so that the text of the page has them three times over).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.texmath import texmath_plugin

Year = Literal[2023, 2024, 2025]
ICON = '<svg stroke="currentColor" viewBox="0 0 24 24" class="h-4 w-4"><path d="M16 4h2a2 2 0 0 1 2 2v14"></path></svg>'
WRAPPER = {
    2023: '<div class="markdown prose w-full break-words dark:prose-invert dark">{}</div>',
    2024: '<div class="markdown prose w-full break-words dark:prose-invert light">{}</div>',
    2025: '<div class="markdown prose dark:prose-invert w-full break-words dark markdown-new-styling">{}</div>',
}
CODE_BOX = {
    2023: (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center text-gray-200 bg-gray-800 px-4 py-2 '
        'text-xs font-sans"><span class="">{label}</span><button class="flex ml-auto gap-2">{icon}Copy code</button>'
        '</div><div class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs{classes}">{code}</code></div></div>'
        "</pre>"
    ),
    2024: (
        '<pre class="!overflow-visible"><div class="dark bg-gray-950 rounded-md border-[0.5px]"><div class="flex '
        "items-center text-token-text-secondary bg-token-main-surface-secondary px-4 py-2 text-xs font-sans "
        'justify-between rounded-t-md bg-token-surface-primary"><span>{label}</span><span class="" '
        'data-state="closed"><button class="flex gap-1">{icon}Copy code</button></span></div><div class="p-4 '
        'overflow-y-auto" dir="ltr"><code class="!whitespace-pre hljs{classes}">{code}</code></div></div></pre>'
    ),
    2025: (
        '<pre class="overflow-visible!"><div class="contain-inline-size rounded-2xl relative bg-token-sidebar-surface">'
        '<div class="flex items-center text-token-text-secondary px-4 py-2 text-xs font-sans h-9">{label}</div>'
        '<div class="sticky top-9"><div class="absolute end-0 bottom-0 flex h-9"><button aria-label="Copy">{icon}Copy'
        '</button><button>{icon}Edit</button></div></div><div class="overflow-y-auto p-4" dir="ltr"><code '
        'class="whitespace-pre!{classes}"><span><span>{code}</span></span></code></div></div></pre>'
    ),
}
KATEX = (
    '<span class="katex"><span class="katex-mathml"><math xmlns="http://www.w3.org/1998/Math/MathML"><semantics><mrow>'
    '<mi>{drawn}</mi></mrow><annotation encoding="application/x-tex">{tex}</annotation></semantics></math></span>'
    '<span class="katex-html" aria-hidden="true"><span class="base"><span class="strut" style="height:0.69em;"></span>'
    '<span class="mord mathnormal">{drawn}</span></span></span></span>'
)
KEYWORDS = re.compile(r"\b(?:def|class|return|import|from|for|if|else|function|const|let|var|int|SELECT|FROM)\b")


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables, strikethrough, and formulas between `\\(` and `\\)`, `\\[` and `\\]`."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    markdown.use(texmath_plugin, delimiters="brackets")
    # The plugin's own rule takes the marks of a list or quotation around a formula for a part of it.
    markdown.block.ruler.at("math_block", _display_formula, {"alt": []})
    return markdown


def _display_formula(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A block that begins with `\\[` and ends with the line on which `\\]` stands."""
    if state.is_code_block(start) or not state.src.startswith("\\[", state.bMarks[start] + state.tShift[start]):
        return False
    for line in range(start, end):
        if line > start and (state.isEmpty(line) or state.sCount[line] < state.blkIndent):
            return False
        content = state.getLines(start, line + 1, state.blkIndent, False).strip()
        if content.endswith("\\]"):
            if not silent:
                token = state.push("math_block", "math", 0)
                token.block, token.content = True, content[2:-2]
                state.line = line + 1
            return True
    return False


@dataclass(frozen=True)
class Page:
    """How a page draws: its year, and whether it breaks lines between blocks."""

    year: Year = 2023
    line_breaks: bool = False

    def draw(self, markdown: str) -> str:
        """The HTML of the element that shows an answer."""
        root = SyntaxTreeNode(parser().parse(markdown))
        return WRAPPER[self.year].format(self._children(root))

    def _children(self, node: SyntaxTreeNode) -> str:
        return "".join(self._node(child) for child in node.children)

    def _node(self, node: SyntaxTreeNode) -> str:
        draw: Callable[[SyntaxTreeNode], str] | None = getattr(self, f"_{node.type}", None)
        if draw is not None:
            return draw(node)
        html = f"<{node.tag}>{self._children(node)}</{node.tag}>"
        return html + "\n" if self.line_breaks and node.block else html

    # Blocks

    def _paragraph(self, node: SyntaxTreeNode) -> str:
        content = self._children(node)
        if node.hidden:
            return content
        return f"<p>{content}</p>" + ("\n" if self.line_breaks else "")

    def _inline(self, node: SyntaxTreeNode) -> str:
        return self._children(node)

    def _ordered_list(self, node: SyntaxTreeNode) -> str:
        start = ' start="{}"'.format(node.attrs["start"]) if "start" in node.attrs else ""
        return f"<ol{start}>{self._children(node)}</ol>"

    def _hr(self, _: SyntaxTreeNode) -> str:
        return "<hr>"

    def _table(self, node: SyntaxTreeNode) -> str:
        table = f"<table>{self._children(node)}</table>"
        if self.year < 2025:
            return table
        return f'<div class="_tableContainer_1"><div class="_tableWrapper_1 group flex w-fit">{table}</div></div>'

    def _cell(self, node: SyntaxTreeNode) -> str:
        style = ' style="{}"'.format(node.attrs["style"]) if "style" in node.attrs else ""
        return f"<{node.tag}{style}>{self._children(node)}</{node.tag}>"

    _th = _td = _cell

    def _fence(self, node: SyntaxTreeNode) -> str:
        info = node.info.strip().split()
        label = info[0] if info else ""
        classes = f" language-{escape(label)}" if label else ""
        code = KEYWORDS.sub(r'<span class="hljs-keyword">\g<0></span>', escape(node.content))
        return CODE_BOX[self.year].format(label=escape(label), classes=classes, code=code, icon=ICON)

    _code_block = _fence

    def _math_block(self, node: SyntaxTreeNode) -> str:
        display = f'<span class="katex-display">{self._katex(node)}</span>'
        return f'<div class="math math-display">{display}</div>' if self.year == 2023 else display

    # Inline

    def _text(self, node: SyntaxTreeNode) -> str:
        return escape(node.content)

    def _softbreak(self, _: SyntaxTreeNode) -> str:
        return "\n"

    def _hardbreak(self, _: SyntaxTreeNode) -> str:
        return "<br>\n"

    def _html_inline(self, node: SyntaxTreeNode) -> str:
        """Pages let `<br>` through, with which tables break lines, and show any other tag as text."""
        return "<br>" if re.fullmatch(r"<br\s*/?>", node.content) else escape(node.content)

    def _html_block(self, node: SyntaxTreeNode) -> str:
        text = escape(node.content.strip())
        return text if node.parent and node.parent.type == "list_item" else f"<p>{text}</p>"

    def _code_inline(self, node: SyntaxTreeNode) -> str:
        return f"<code>{escape(node.content)}</code>"

    def _katex(self, node: SyntaxTreeNode) -> str:
        tex = node.content.strip()
        return KATEX.format(tex=escape(tex), drawn=escape(re.sub(r"[\\{}_^]", "", tex)))

    def _math_inline(self, node: SyntaxTreeNode) -> str:
        inner = self._katex(node)
        return f'<span class="math math-inline">{inner}</span>' if self.year == 2023 else inner

    _math_single = _math_inline

    def _image(self, node: SyntaxTreeNode) -> str:
        alt = RendererHTML().renderInlineAsText(node.token.children, parser().options, {}) if node.token else ""
        return f'<img src="{escape(str(node.attrs["src"]))}" alt="{escape(alt)}"{self._title(node)}>'

    def _link(self, node: SyntaxTreeNode) -> str:
        return f'<a href="{escape(str(node.attrs["href"]))}"{self._title(node)}>{self._children(node)}</a>'

    def _title(self, node: SyntaxTreeNode) -> str:
        return ' title="{}"'.format(escape(str(node.attrs["title"]))) if "title" in node.attrs else ""
