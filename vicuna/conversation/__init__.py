"""The one place where a prompt is put together.

Trainer, splitter, worker, API, page, terminal chat and judge all call this package, so that the prompt trained on is
byte for byte, and token for token, the prompt served.

- `message`: messages and conversations
- `records`: the formats in which people keep conversations, read and written
- `templates`: the templates as data
- `render`: messages to segments and text
- `tokenizer`: the tokenizer protocols, and loading one from a folder
- `tokens`: segments to token ids and labels
- `reply`: the tokens of a reply to text, incrementally
- `jinja`: templates exported for other servers
- `chat_template`: a tokenizer's own template cut into segments
- `sandbox`: a stranger's Jinja rendered within a budget
- `meter`: what a chat template may spend, and what each thing costs
- `counting`: token counts, cached by fragment and word
- `words`: which words' token counts add up
- `counting_tokenizer`: a cached tokenizer for counting, without transformers
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
