"""Code boxes of every year: the language and every space of the code stay."""

from collections.abc import Callable

import pytest

from tests.data.html.builders import COPY, box_2023, box_2024, box_2025
from vicuna.data.html.walker import to_markdown

Box = Callable[..., str]  # a year's way to draw a label and code


@pytest.mark.parametrize("box", [box_2023, box_2024, box_2025])
def test_code_box_keeps_language_and_every_space(box: Box) -> None:
    code = "if a &lt; b:\n\n\tprint(  &quot;Copy code&quot;)\n"
    expected = '```python\nif a < b:\n\n\tprint(  "Copy code")\n```'
    assert to_markdown(f"<p>So:</p>{box('python', code, ' language-python')}<p>Done.</p>") == (
        f"So:\n\n{expected}\n\nDone."
    )


@pytest.mark.parametrize("box", [box_2023, box_2024])
def test_code_box_with_an_empty_label_has_no_language(box: Box) -> None:
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
