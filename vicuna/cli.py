"""The command `vicuna`: a table of verbs, each a module with `main(argv) -> int`, imported when chosen."""

import importlib
import sys
from collections.abc import Callable

from vicuna import __version__

# verb: (module, what it does)
VERBS = {
    "demo": ("vicuna.bot.demo.__main__", "the whole chain on a small model: clean, train, delta, serve, judge, report"),
    "data": ("vicuna.data.__main__", "clean shared conversations into training records"),
    "template": ("vicuna.template", "list the conversation templates, or show one with the trained words coloured"),
    "train": ("vicuna.train.__main__", "fine-tune a model on records, loss on the assistant's words only"),
    "make-delta": ("vicuna.make_delta", "the difference between a base model and a fine-tuned one"),
    "apply-delta": ("vicuna.apply_delta", "base + delta = model, verified bit by bit"),
    "weights": ("vicuna.weights.__main__", "verify, inspect and cast checkpoints and deltas; merge LoRA adapters"),
    "export": ("vicuna.export", "a model as a GGUF file for llama.cpp, GPT4All and the like; and its check"),
    "import": ("vicuna.import_gguf", "a GGUF file as a Hugging Face model"),
    "serve": ("vicuna.serve.__main__", "controller, workers, OpenAI-compatible API and web page in one command"),
    "chat": ("vicuna.serve.chat", "chat in the terminal"),
    "eval": ("vicuna.eval.__main__", "answer questions, judge the answers, report with statistics"),
}


def usage() -> str:
    """The text of `vicuna --help`."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: vicuna VERB [OPTION ...]",
            "",
            "Turn shared conversations into a chatbot of your own, and find out how good it is.",
            "",
            *lines,
            "",
            "vicuna VERB --help tells about one verb; vicuna --version prints the version.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the verb named first, with the rest of the arguments."""
    if sys.platform == "win32":
        print("error: vicuna runs on Linux and macOS; on Windows, run it inside WSL", file=sys.stderr)
        return 1
    try:
        from vicuna.options import command  # here, so that a Ctrl-C this early is answered as well
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return command(_run)(argv)


def _run(argv: list[str] | None) -> int:
    from vicuna.errors import UsageError, nearest
    from vicuna.io.terminal import write, write_text

    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) > 1 and arguments[0] == "help":
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        write_text(usage())
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb == "--version":
        write(f"vicuna {__version__}")
        return 0
    if verb not in VERBS:
        raise UsageError(f"vicuna: unknown verb '{verb}'; {nearest(verb, VERBS)}")
    program: Callable[[list[str]], int] = importlib.import_module(VERBS[verb][0]).main
    return program(rest)
