"""`vicuna demo`: run the chain, print its table, write its page, and say how to chat with the result."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from vicuna.bot.demo.chain import TUNED, Chain
from vicuna.bot.demo.report import write_page
from vicuna.bot.memory import MemoryWatch
from vicuna.bot.stages import Workspace, table
from vicuna.errors import VicunaError, require
from vicuna.io import log
from vicuna.io.jsonl import read_json, write_json
from vicuna.io.terminal import write, write_text
from vicuna.options import command, option, parse

MARKER = "vicuna_demo.json"
NEEDED = {"torch": "demo", "transformers": "demo", "zstandard": "demo", "fastapi": "demo", "websockets": "demo"}
EPILOG = """The stages: find the small model, clean the sample, fine-tune, make the delta, apply it, prove the
result bit-equal, serve and chat, answer questions, judge. A stage whose output is there and intact is skipped.
With OPENAI_API_KEY set, a real judge is asked (a few cents) instead of the rule-based stand-in."""


@dataclass(frozen=True)
class DemoOptions:
    """`vicuna demo` options."""

    output_dir: Path = option(Path("vicuna-demo"), help="folder for everything the demo makes", metavar="DIR")
    judge: str = option("gpt-4o", help="the judge at the OpenAI API, asked if OPENAI_API_KEY is set")


@command
def main(argv: list[str] | None = None) -> int:
    """Run the chain; stdout gets the table."""
    description = "Clean, train, delta, serve, chat, judge: the whole chain on SmolLM2-135M, without key and GPU."
    options = parse(DemoOptions, argv, prog="vicuna demo", description=description, epilog=EPILOG)
    for module, extra in NEEDED.items():
        if importlib.util.find_spec(module) is None:  # loading them here would cost seconds and memory for nothing
            require(module, extra)
    folder = options.output_dir.absolute()
    claim_folder(folder)
    chain = Chain(Workspace(folder), options.judge if os.environ.get("OPENAI_API_KEY") else None)
    with MemoryWatch() as watch:
        try:
            for number, stage in enumerate(chain.stages(), 1):
                chain.workspace.run(stage, number, chain.num_stages)
        finally:
            chain.close()
    peak = note_peak(folder, watch.peak_bytes)
    page = folder / "index.html"
    write_page(page, chain.workspace, judge=chain.judge, peak_bytes=peak)
    write_text(table(chain.workspace.done))
    if peak:
        write(f"  peak memory of all processes together: {log.human_bytes(peak)}")
    write("", f"every figure and plot:  {page}")
    write(f"chat with the result:   {command_line()} serve --model {TUNED}={folder / 'restored'}")
    write("                        then open http://127.0.0.1:7860")
    write(f"begin with your own:    {command_line()} data CHATS --output-dir outputs/cleaned   (then README.md, Train)")
    return 0


def claim_folder(folder: Path) -> None:
    """Take the folder for the demo.

    Raises:
        VicunaError: it holds something that no demo made.
    """
    if folder.exists() and not folder.is_dir():
        raise VicunaError(f"--output-dir {folder} is a file; choose another folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise VicunaError(f"--output-dir {folder} holds files that no demo made; choose an empty or a new folder")
    if (folder / MARKER).exists():
        _noted_peak(folder)
    else:
        write_json(folder / MARKER, {"peak_bytes": 0}, follows_link=False)


def note_peak(folder: Path, peak_bytes: int) -> int:
    """The largest memory of any run in this folder; a run that skips its stages needs little."""
    largest = max(peak_bytes, _noted_peak(folder))
    write_json(folder / MARKER, {"peak_bytes": largest}, follows_link=False)
    return largest


def _noted_peak(folder: Path) -> int:
    note = read_json(folder / MARKER)
    if not isinstance(note, dict) or type(note.get("peak_bytes")) is not int:
        raise VicunaError(f"{folder / MARKER} was not written by a demo; choose another --output-dir")
    peak: int = note["peak_bytes"]
    return peak


def command_line() -> str:
    """The command `vicuna` beside this Python, as the user can type it: by a relative path where there is one."""
    script = Path(sys.executable).parent / "vicuna"
    if not script.exists():
        return f"{sys.executable} -m vicuna"
    try:
        return str(script.relative_to(Path.cwd()))
    except ValueError:
        return str(script)


if __name__ == "__main__":
    sys.exit(main(None))
