"""A request's prompt as token ids, or the reason why this worker will not run it.

Before: `worker` has a `Submit` frame. After: the ids go to the engine, and back to the controller's journal.
"""

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from vicuna.conversation import Message, Template, TemplateError, encode_prompt
from vicuna.io.log import warning
from vicuna.serve.engines.interface import Engine
from vicuna.serve.fleet.protocol import MAX_MESSAGE, Submit

# For each token of the context, so many characters of a prompt at most are looked at: as many as the longest token of
# the vocabulary has, and no fewer than this. Tokenizing and rendering cost by the character.
MIN_CHARACTERS_PER_TOKEN = 64


class Refusal(Exception):
    """A request that this worker will not run."""

    def __init__(self, code: Literal["busy", "context_length_exceeded", "invalid_prompt"], message: str) -> None:
        super().__init__(message[:MAX_MESSAGE])
        self.code = code


class PromptEncoder:
    """Tokenizes prompts, one at a time, in a thread of its own.

    The thread has a copy of the tokenizer, because the event loop decodes replies meanwhile: Hugging Face's fast
    tokenizers raise "Already borrowed" when both happen at once.

    Args:
        model: the name for messages to clients.
    """

    def __init__(self, model: str, engine: Engine, template: Template) -> None:
        self._model, self._engine, self._template = model, engine, template
        self._tokenizer = copy.deepcopy(engine.tokenizer)
        longest = max(map(len, self._tokenizer.get_vocab()), default=0)
        self.max_characters = engine.context_size * max(longest, MIN_CHARACTERS_PER_TOKEN)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")

    async def encode(self, submit: Submit) -> list[int]:
        """The prompt's ids: at least one, all in the vocabulary, and fewer than the context holds.

        Raises:
            Refusal: the prompt cannot be had so.
        """
        self._check_size(submit)
        try:
            ids = await asyncio.get_running_loop().run_in_executor(self._thread, self._ids, submit)
        except (TemplateError, ValueError) as error:
            raise Refusal("invalid_prompt", str(error)) from None
        except asyncio.CancelledError:
            raise
        except (
            BaseException
        ) as error:  # a template or a tokenizer that breaks, Rust's panics too, costs this prompt only
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            warning(f"model '{self._model}': a prompt broke its template or tokenizer: {type(error).__name__}: {error}")
            raise Refusal("invalid_prompt", "the model's template or tokenizer cannot read this prompt") from None
        size, vocab_size = self._engine.context_size, self._engine.vocab_size
        if not ids:
            raise Refusal("invalid_prompt", "the prompt has no tokens")
        if max(ids) >= vocab_size:  # also if the folder holds another model's tokenizer
            vocabulary = f"the vocabulary of {vocab_size} that model '{self._model}' has"
            raise Refusal("invalid_prompt", f"token id {max(ids)} is not in {vocabulary}")
        if len(ids) >= size:
            message = f"the prompt has {len(ids)} tokens, the context of model '{self._model}' is {size}; shorten it"
            raise Refusal("context_length_exceeded", message)
        return ids

    def _check_size(self, submit: Submit) -> None:
        """Refuse what cannot fit into the context before anything is made of it.

        Raises:
            Refusal: more messages or ids than the context has tokens, or more characters than so many tokens can hold.
        """
        size, messages = self._engine.context_size, submit.messages or []
        context = f"the context of model '{self._model}' is {size}"
        if (count := max(len(messages), len(submit.prompt_ids or ()))) >= size:
            kind = "messages" if messages else "tokens"
            raise Refusal("context_length_exceeded", f"the prompt has {count} {kind}, {context}; shorten it")
        num_characters = len(submit.text or "") + sum(len(message.content) for message in messages)
        if num_characters > self.max_characters:
            limit = f"at most {self.max_characters} are looked at ({context} tokens)"
            message = f"the prompt has {num_characters} characters, {limit}; shorten it"
            raise Refusal("context_length_exceeded", message)

    def close(self) -> None:
        """Begin no other prompt; the thread ends after the one it is in."""
        self._thread.shutdown(wait=False)

    def _ids(self, submit: Submit) -> list[int]:
        """The prompt's ids: as given, or of the text as it stands, or of the messages in the model's template."""
        if submit.prompt_ids is not None:
            return submit.prompt_ids
        if submit.text is not None:
            ids: list[int] = self._tokenizer([submit.text], add_special_tokens=True)["input_ids"][0]
            return ids
        messages = [Message(message.role, message.content) for message in submit.messages or ()]
        return encode_prompt(messages, self._template, self._tokenizer)
