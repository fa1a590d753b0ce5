"""The step `html`: answers that are a chat page's HTML become Markdown.

Only answers of ShareGPT's shape are read as HTML, and of the other turns only those that are an element of the page as
a whole; every other turn stays byte for byte. `vicuna.data.html` does the conversion.
"""

from vicuna.conversation import Message
from vicuna.data.html.walker import HtmlError, is_page, looks_like_html, page_text, to_markdown
from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Step, excerpt


def _convert(record: Record) -> Outcome:
    messages, repairs = [], []
    for message, turn in zip(record.messages, record.turns, strict=True):
        content = message.content
        try:
            if message.role == "assistant" and record.shape == "sharegpt" and looks_like_html(content):
                content = to_markdown(content)
            elif message.role != "assistant" and is_page(content):
                content = page_text(content)
                repairs.append(Finding("human_html", excerpt(message.content), turn))
        except HtmlError as error:
            return Drop(Finding("broken_html", str(error), turn))
        messages.append(Message(message.role, content))
    return Keep(record.with_messages(tuple(messages)), tuple(repairs))


HTML_STEP = Step(
    "html",
    2,
    {
        "human_html": "a human turn was an element of the page; its text was taken",
        "broken_html": "an answer's elements are nested beyond any sense",
    },
    _convert,
)
