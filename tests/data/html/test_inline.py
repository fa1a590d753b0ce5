"""Inline content: emphasis, breaks and links."""

from vicuna.data.html.walker import to_markdown


def test_inline_marks_breaks_links_and_quotes() -> None:
    html = (
        "<p><strong>Bold </strong>and <em>soft</em>,<br>\nsee <a href='https://example.org/a'>this</a>.</p>"
        "<blockquote><p>one</p><p>two</p></blockquote>"
    )
    assert to_markdown(html) == ("**Bold** and *soft*,  \nsee [this](https://example.org/a).\n\n> one\n>\n> two")


def test_an_address_as_its_own_link() -> None:
    address = "https://example.org/a_b"
    assert to_markdown(f'<p>See <a href="{address}">{address}</a>.</p>') == f"See <{address}>."
    linked_by_the_page = f'<p>See <a href="{address}" target="_new">{address}</a>.</p>'
    assert to_markdown(linked_by_the_page) == f"See {address}."
