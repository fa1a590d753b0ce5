"""Texts from outside on a terminal: what would steer or hide is shown, and no script is broken."""

import ast
import io
import json
import logging
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest

import vicuna
from vicuna.io import secrets, terminal
from vicuna.io.secrets import Secret
from vicuna.io.terminal import MAX_LINE_CHARACTERS, printable, printable_lines, style

ORDINARY = (
    "Plain text, with an ümlaut and 汉字 and עברית.",
    "می\u200cخواهم",  # Persian, with the non-joiner that its spelling needs
    "क्\u200dष ශ්\u200dරී",  # Hindi and Sinhala conjuncts
    "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 👍🏽",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
    "ភាសា\u200bខ្មែរ",  # Khmer has no spaces; a zero-width space lets lines break
    "葛\U000e0100飾",  # a variant of a character
    "ᄀ\u1160",  # old Hangul with a filler
)
ATTACKS = {
    "\x1b[31m": r"\x1b[31m",
    "\x1b]52;c;ZXZpbA==\x07": r"\x1b]52;c;ZXZpbA==\x07",
    "\x9b2J": r"\x9b2J",
    "good\rbad": r"good\rbad",
    "a\x08b": r"a\x08b",
    "x\u202egpj.exe": r"x\u202egpj.exe",
    "a\u2066b\u2069": r"a\u2066b\u2069",
    "mod\u200del": r"mod\u200del",
    "a\u200bb": r"a\u200bb",
    "\ufeffa": r"\ufeffa",
    "a\x85b": r"a\x85b",
    "\U000e0041\U000e0042": r"\U000e0041\U000e0042",
    "\u3164": r"\u3164",
    "a\udc80": r"a\udc80",
}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_of_any_script_stays(text: str) -> None:
    assert printable(text) == printable_lines(text) == text


@pytest.mark.parametrize(("text", "shown"), ATTACKS.items())
def test_what_steers_or_hides_is_shown(text: str, shown: str) -> None:
    assert printable(text) == printable_lines(text) == shown


def test_no_control_or_format_character_of_unicode_stays_raw() -> None:
    raw = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and printable(character) == character
    ]
    assert raw == []


def test_line_breaks_are_shown_in_a_line_and_kept_in_a_text() -> None:
    assert printable("a\n\tb\r\nc") == r"a\n\tb\r\nc"
    assert printable_lines("a\n\tb\r\nc") == "a\n\tb\nc"
    assert (printable("a\u2028"), printable_lines("a\u2028")) == (r"a\u2028", "a\u2028")


def test_an_overlong_value_is_cut_in_its_middle_with_its_length() -> None:
    shown = printable("a" * 600_000 + "z" * 400_000)
    assert len(shown) < MAX_LINE_CHARACTERS + 50
    assert shown.startswith("aaa") and shown.endswith("zzz") and "(1,000,000 characters in all)" in shown


def test_colours_are_put_around_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    terminal.write(["a", style("\x1b[0mx", "red", "bold")])
    assert screen.getvalue() == "a\033[31;1m\\x1b[0mx\033[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    terminal.write([style("x", "red"), style("y", "green", plain="⟦{}⟧")])
    assert screen.getvalue() == "x⟦y⟧\n"


def test_json_keeps_its_value_and_shows_nothing_raw(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a\x7f": ["\u202e\x9b", "👨\u200d👩", "\U000e0041", "é" * 3_000_000]}
    terminal.write_json(value, is_ascii=False)
    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert not {"\x7f", "\u202e", "\x9b", "\U000e0041"} & set(text)


def test_a_growing_text_is_shown_as_the_whole_would_be(capsys: pytest.CaptureFixture[str]) -> None:
    whole = "a\r\nb" + "".join(ORDINARY) + "".join(ATTACKS) + "x\r"
    shown = 0
    for end in range(len(whole) + 1):
        shown = terminal.write_more(whole[:end], shown, is_last=False)
    assert terminal.write_more(whole, shown, is_last=True) == len(whole)
    assert capsys.readouterr().out == printable_lines(whole)


def test_secrets_are_taken_out(capsys: pytest.CaptureFixture[str]) -> None:
    key = Secret("sk-terminal-test-0001")
    terminal.say(f"the server says: wrong key {key.reveal()} at http://me:pw@host/v1")
    terminal.write_json({"said": key.reveal()})
    captured = capsys.readouterr()
    assert captured.err == f"the server says: wrong key {secrets.SHOWN} at http://{secrets.SHOWN}@host/v1\n"
    assert json.loads(captured.out) == {"said": secrets.SHOWN}


def test_say_from_a_signal_handler_in_the_middle_of_say(capfd: pytest.CaptureFixture[str]) -> None:
    class Busy:
        def write(self, _: str) -> int:
            raise RuntimeError("reentrant call")

        def flush(self) -> None: ...

        def fileno(self) -> int:
            return 2

    original, sys.stderr = sys.stderr, Busy()
    try:
        terminal.say("saving")
    finally:
        sys.stderr = original
    assert capfd.readouterr().err == "saving\n"


PROGRAM = """
import logging, sys, warnings
from vicuna.options import command
@command
def main(argv):
    warnings.warn("warned \\x1b[2J")
    logging.getLogger("library").warning("logged %s", "\\x1b[2J")
    try:
        raise ValueError("caught \\x1b[2J")
    except ValueError:
        logging.getLogger("library").exception("while")
    raise AssertionError("raised \\x1b[2J")
sys.exit(main(sys.argv[1:]))
"""


def test_warnings_loggers_and_tracebacks_pass_too() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 1
    for word in ("warned", "logged", "caught", "raised"):
        assert f"{word} \\x1b[2J" in done.stderr
    assert "\x1b" not in done.stderr


def test_the_loggers_message_is_clean_for_every_handler() -> None:
    terminal.take_over()
    stream = io.StringIO()
    logger, handler = logging.getLogger("vicuna test"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.warning("said %s", "\x1b[2J")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "said \\x1b[2J\n"
    with pytest.warns(UserWarning, match="still seen"):
        warnings.warn("still seen", stacklevel=1)


# What may touch the streams besides the door: (module, what), each for its reason.
ALLOWED = {
    ("cli.py", "print"),  # constant texts, before anything else can be imported
    ("cli.py", "sys.stderr"),
    ("options.py", "sys.stdout"),  # flushes it
    ("io/log.py", "sys.stderr"),  # asks whether it is a terminal
    ("serve/terminal/screen.py", "sys.stdout"),  # asks whether it is a terminal
    ("serve/terminal/screen.py", "Console"),  # draws Markdown that was cleaned: `_SafeMarkdown`
    ("bot/demo/chain.py", "sys.stderr"),  # a child's, which has this door itself
}
DOOR = ("io/terminal.py", "io/streams.py")
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
WRITERS = {"print", "Console", "print_exc", "print_exception", "print_stack", "StreamHandler", "basicConfig", "pprint"}


def _uses(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in STREAMS and ast.unparse(node.value) == "sys":
            found.add(f"sys.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "sys":
            found |= {f"sys.{alias.name}" for alias in node.names if alias.name in STREAMS}
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            is_own = isinstance(node.func, ast.Name) or ast.unparse(node.func).split(".")[0] in ("traceback", "logging")
            found |= {name} & WRITERS if is_own else set()
            if ast.unparse(node.func) == "os.write" and ast.unparse(node.args[0]) in ("1", "2"):
                found.add("os.write")
    return found


def test_no_module_has_a_second_way_to_the_terminal() -> None:
    folder = Path(vicuna.__file__).parent
    found = {
        (str(path.relative_to(folder)), what)
        for path in folder.rglob("*.py")
        if str(path.relative_to(folder)) not in DOOR
        for what in _uses(path)
    }
    assert found - ALLOWED == set(), "print through vicuna.io.terminal"
    assert ALLOWED - found == set(), "no longer needed"
