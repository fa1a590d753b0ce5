"""Every shape in which chat pages have drawn an answer, and the Markdown that the model had written."""

import time

import pytest

from vicuna.data.html.walker import HtmlError, is_page, looks_like_html, page_text, to_markdown

SVG = '<svg stroke="currentColor" viewBox="0 0 24 24" class="h-4 w-4"><path d="M5 15V5h10"></path></svg>'
COPY = f'<button class="flex ml-auto gap-2">{SVG}Copy code</button>'
FORMULA = (
    '<span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>x</mi><mo>&lt;</mo><mn>2</mn></mrow>'
    '<annotation encoding="application/x-tex">x &lt; \\frac{1}{2}</annotation></semantics></math></span>'
    '<span class="katex-html" aria-hidden="true"><span class="mord">x</span><span>&lt;</span></span></span>'
)


def box_2023(label: str, code: str, classes: str = "") -> str:
    return (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center text-gray-200 bg-gray-800 px-4 py-2">'
        f'<span class="">{label}</span>{COPY}</div><div class="p-4 overflow-y-auto">'
        f'<code class="!whitespace-pre hljs{classes}">{code}</code></div></div></pre>'
    )


def box_2024(label: str, code: str, classes: str = "") -> str:
    return (
        '<pre class="!overflow-visible"><div class="dark bg-gray-950 rounded-md"><div class="flex items-center text-xs '
        f'bg-token-surface-primary"><span>{label}</span><span class="" data-state="closed">{COPY}</span></div>'
        f'<div class="p-4 overflow-y-auto" dir="ltr"><code class="!whitespace-pre hljs{classes}">{code}</code></div>'
        "</div></pre>"
    )


def box_2025(label: str, code: str, classes: str = "") -> str:
    return (
        '<pre class="overflow-visible!"><div class="contain-inline-size rounded-2xl relative bg-token-sidebar">'
        f'<div class="flex items-center text-xs">{label}</div><div class="sticky top-9"><div class="absolute end-0">'
        '<button>Copy</button><button>Edit</button></div></div><div class="overflow-y-auto p-4" dir="ltr">'
        f'<code class="whitespace-pre!{classes}"><span><span>{code}</span></span></code></div></div></pre>'
    )


@pytest.mark.parametrize("box", [box_2023, box_2024, box_2025])
def test_code_box_keeps_language_and_every_space(box) -> None:  # type: ignore[no-untyped-def]
    code = "if a &lt; b:\n\n\tprint(  &quot;Copy code&quot;)\n"
    expected = '```python\nif a < b:\n\n\tprint(  "Copy code")\n```'
    assert to_markdown(f"<p>So:</p>{box('python', code, ' language-python')}<p>Done.</p>") == (
        f"So:\n\n{expected}\n\nDone."
    )


@pytest.mark.parametrize("box", [box_2023, box_2024])
def test_code_box_with_an_empty_label_has_no_language(box) -> None:  # type: ignore[no-untyped-def]
    assert to_markdown(box("", "ls\n", " language-scss")) == "```\nls\n```"


def test_code_div_without_pre() -> None:
    html = (
        '<div class="bg-black rounded-md mb-4"><div class="flex items-center"><span>sql</span>'
        f'{COPY}</div><div class="p-4"><code class="!whitespace-pre hljs language-sql">SELECT 1;</code></div></div>'
    )
    assert to_markdown(html) == "```sql\nSELECT 1;\n```"


def test_language_from_the_class_alone() -> None:
    assert to_markdown('<pre><code class="hljs language-rust">fn main() {}\n</code></pre>') == (
        "```rust\nfn main() {}\n```"
    )


def test_highlighting_spans_leave_no_trace() -> None:
    code = '<span class="hljs-keyword">import</span> os<span class="hljs-comment"># a &amp; b</span>'
    assert to_markdown(box_2023("python", code, " language-python")) == "```python\nimport os# a & b\n```"


def test_a_fence_inside_code_gets_a_longer_fence_around_it() -> None:
    assert to_markdown(box_2023("markdown", "```sh\nls\n```\n")) == "````markdown\n```sh\nls\n```\n````"


def test_code_that_says_copy_code() -> None:
    assert to_markdown(box_2023("html", "&lt;button&gt;Copy code&lt;/button&gt;\n")) == (
        "```html\n<button>Copy code</button>\n```"
    )


def test_formulas_come_from_their_tex_once() -> None:
    assert to_markdown(f"<p>Let {FORMULA} be.</p>") == "Let \\( x < \\frac{1}{2} \\) be."
    block = f'<p>So</p><div class="math math-display"><span class="katex-display">{FORMULA}</span></div>'
    assert to_markdown(block) == "So\n\n\\[ x < \\frac{1}{2} \\]"


def test_page_markers_and_counters_go() -> None:
    marker = (
        f'<div class="text-xs"><button>{SVG}</button><span class="flex-grow">2 / 3</span><button>{SVG}</button></div>'
    )
    counter = '<div class="flex gap-3"><span>Copy512 chars / 88 words</span></div>'
    assert to_markdown(f'{marker}<div class="markdown prose"><p>Yes.</p></div>{counter}') == "Yes."


def test_an_answer_that_is_a_fraction_stays() -> None:
    assert to_markdown('<div class="markdown prose"><p>Simplified:</p><p>1 / 3</p></div>') == "Simplified:\n\n1 / 3"


@pytest.mark.parametrize("gap", ["", "\n", "\n    "])
def test_blocks_come_out_the_same_with_and_without_line_breaks_between_them(gap: str) -> None:
    parts = [
        '<div class="markdown prose">',
        "<h2>Plan</h2>",
        "<p>One.</p>",
        "<ul>",
        "<li>a</li>",
        "<li>b</li>",
        "</ul>",
    ]
    assert to_markdown(gap.join([*parts, "<p>End.</p>", "</div>"])) == "## Plan\n\nOne.\n\n- a\n- b\n\nEnd."


def test_lists_nest_and_hold_code() -> None:
    box = box_2023("sh", "ls\n")
    html = f"<ol><li><p>Run</p>{box}</li><li><p>Then</p><ul><li>a<ul><li>b</li></ul></li></ul></li></ol>"
    assert to_markdown(html) == "1. Run\n\n   ```sh\n   ls\n   ```\n\n2. Then\n\n   - a\n     - b"


def test_a_list_keeps_its_first_number() -> None:
    assert to_markdown('<ol start="3"><li>c</li><li>d</li></ol>') == "3. c\n4. d"


def test_tables_escape_the_bar() -> None:
    html = (
        '<table><thead><tr><th>a</th><th style="text-align: right">b</th></tr></thead>'
        "<tbody><tr><td><code>x|y</code></td><td>1 | 2</td></tr></tbody></table>"
    )
    assert to_markdown(html) == "| a | b |\n| --- | ---: |\n| `x\\|y` | 1 \\| 2 |"


def test_inline_marks_breaks_links_and_quotes() -> None:
    html = (
        "<p><strong>Bold </strong>and <em>soft</em>,<br>\nsee <a href='https://example.org/a'>this</a>.</p>"
        "<blockquote><p>one</p><p>two</p></blockquote>"
    )
    assert to_markdown(html) == ("**Bold** and *soft*,  \nsee [this](https://example.org/a).\n\n> one\n>\n> two")


def test_literal_marks_are_escaped_only_where_they_would_be_read_as_marks() -> None:
    assert to_markdown("<p>snake_case, 2 * 3 and a*b</p>") == "snake_case, 2 * 3 and a*b"
    assert to_markdown("<p>*not soft* and __init__</p>") == "\\*not soft\\* and \\_\\_init\\_\\_"
    assert to_markdown("<p>1. not a list</p>") == "1\\. not a list"


@pytest.mark.parametrize("text", ["<p>" + "*a " * 20_000, "<p>" + "_a " * 20_000, "<p>" + "~~a " * 20_000])
def test_hostile_lines_take_linear_time(text: str) -> None:
    started = time.process_time()
    to_markdown(text)
    assert time.process_time() - started < 2


def test_senseless_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(HtmlError, match="nested more than"):
        to_markdown("<div>" * 3000)


@pytest.mark.parametrize(
    "text",
    [
        "Use `<div>` for that.",
        '```html\n<div class="markdown prose">x</div>\n```',
        "<html> is the root element, and <p> a paragraph.",
        "vector<int> v;",
    ],
)
def test_text_about_html_is_no_html(text: str) -> None:
    assert not looks_like_html(text)


def test_human_turns_that_are_a_page_element() -> None:
    html = '<div class="min-h-[20px] flex whitespace-pre-wrap">a &lt; b\n    c</div>'
    assert is_page(html)
    assert page_text(html) == "a < b\n    c"
    assert not is_page("<div>why is this red?</div>")
    assert not is_page("vector<int> __init__")


def test_an_address_as_its_own_link() -> None:
    address = "https://example.org/a_b"
    assert to_markdown(f'<p>See <a href="{address}">{address}</a>.</p>') == f"See <{address}>."
    linked_by_the_page = f'<p>See <a href="{address}" target="_new">{address}</a>.</p>'
    assert to_markdown(linked_by_the_page) == f"See {address}."


def test_a_cell_keeps_its_breaks_and_begins_no_list() -> None:
    html = "<table><tr><th>a</th></tr><tr><td>- one <br> - two</td></tr></table>"
    assert to_markdown(html) == "| a |\n| --- |\n| - one <br> - two |"


def test_a_formula_below_a_line_of_text_gets_its_marks_back() -> None:
    html = "<p>Squared:\n[ x^2 = 2 + \\sqrt{3} ]\nThen [ a ] and\n[ a list ]</p><p>[ y = 1 ]</p>"
    assert to_markdown(html) == "Squared:\n\\[ x^2 = 2 + \\sqrt{3} \\]\nThen [ a ] and\n[ a list ]\n\n[ y = 1 ]"
