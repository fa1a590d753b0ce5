"""`python -m vicuna.eval VERB`: the verbs of the evaluation, each a file that is imported when chosen."""

import importlib
import sys

from vicuna.errors import UsageError, nearest
from vicuna.io.terminal import write_text
from vicuna.options import Main, command

# verb: (module, what it does)
VERBS = {
    "answer": ("vicuna.eval.answer", "ask a model the questions and keep its answers"),
    "judge": ("vicuna.eval.judging.judge", "have a judge compare or grade the answers"),
    "report": ("vicuna.eval.reporting.report", "turn judgments into estimates with intervals, on one page"),
    "rule-judge": ("vicuna.eval.judging.rule_judge", "serve a rule-based stand-in for a judge on this machine"),
}


def usage() -> str:
    """The text of `python -m vicuna.eval --help`."""
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: python -m vicuna.eval VERB [OPTION ...]",
            "",
            "Ask models questions, have the answers judged, and find out what the judgments show.",
            "",
            *(f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()),
            "",
            "python -m vicuna.eval VERB --help tells about one verb. Servers are reached by the OpenAI API; a key is",
            "read from OPENAI_API_KEY, and servers on this machine need none.",
        ]
    )


@command
def main(argv: list[str] | None = None) -> int:
    """Run the verb named first, with the rest of the arguments."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        write_text(usage())
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        raise UsageError(f"vicuna eval: unknown verb '{verb}'; {nearest(verb, VERBS)}")
    program: Main = importlib.import_module(VERBS[verb][0]).main
    return program(rest)


if __name__ == "__main__":
    sys.exit(main(None))
