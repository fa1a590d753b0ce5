"""The one place where a prompt is put together.

Trainer, splitter, worker, API, page, terminal chat and judge all call this package, so that the prompt trained on is
byte for byte, and token for token, the prompt served. `templates` is the data, `render` the loop that makes text of it,
`tokens` makes ids and labels, `counting` only counts them (`words` knows which counts add up,
`counting_tokenizer` does without transformers), `reply` makes text of
the ids a model answers with, `jinja` exports a template for other servers (and reads a tokenizer's own), `tokenizer`
loads one from a folder, `records` reads and writes the formats in which people keep conversations.
"""

from vicuna.conversation.counting import CountTokens, TokenCounter
from vicuna.conversation.counting_tokenizer import load_token_counter, needs_transformers
from vicuna.conversation.jinja import load_template, save_template, to_jinja
from vicuna.conversation.message import ROLES, Conversation, Message, RecordError, Role, TemplateError
from vicuna.conversation.records import from_record, to_alpaca, to_openai, to_sharegpt
from vicuna.conversation.render import Rendering, render
from vicuna.conversation.reply import ReplyDecoder
from vicuna.conversation.templates import Template, get_template, template_names
from vicuna.conversation.tokenizer import check_tokenizer, load_tokenizer
from vicuna.conversation.tokens import IGNORE_INDEX, Encoding, encode, encode_prompt, stop_token_ids

__all__ = [
    "IGNORE_INDEX",
    "ROLES",
    "Conversation",
    "CountTokens",
    "Encoding",
    "Message",
    "RecordError",
    "Rendering",
    "ReplyDecoder",
    "Role",
    "Template",
    "TemplateError",
    "TokenCounter",
    "check_tokenizer",
    "encode",
    "encode_prompt",
    "from_record",
    "get_template",
    "load_template",
    "load_token_counter",
    "load_tokenizer",
    "needs_transformers",
    "render",
    "save_template",
    "stop_token_ids",
    "template_names",
    "to_alpaca",
    "to_jinja",
    "to_openai",
    "to_sharegpt",
]
