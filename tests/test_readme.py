"""The README's commands, pasted into one shell in their order; only what its last table names is replaced."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
JUDGE = "--judge rule-judge --base-url http://127.0.0.1:8765/v1"
IN_BACKGROUND = """\\1 > outputs/serve.log 2>&1 &
serving=$!
trap 'kill $serving $! ; wait' EXIT
until grep -q "ready after" outputs/serve.log; do
  kill -0 $serving || { cat outputs/serve.log; exit 1; }
  sleep 0.5
done"""
# What the table's first column names, as a pattern, and what a shell is given in its place.
REPLACED = {
    "--nproc-per-node 8": "--nproc-per-node 2",
    "--judge gpt-4o --max-usd 5 --price-per-1m 2.5 10": JUDGE,
    "vicuna chat --model vicuna": "echo 'What is your name?' | vicuna chat --model vicuna",
    "vicuna serve": IN_BACKGROUND,
}
NOT_RUN = {"REPOSITORY", "scripts/demo", "scripts/test"}


def blocks() -> list[str]:
    """The shell commands of the page, in their order."""
    return re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def pattern(name: str) -> re.Pattern[str]:
    """Where something that is replaced stands: a command that runs until it is ended is its whole line."""
    return re.compile(r"^(vicuna serve [^#\n]*).*$" if name == "vicuna serve" else re.escape(name), re.MULTILINE)


def test_the_table_names_what_is_replaced() -> None:
    table = README[README.index("## The commands of this page") :]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall("`(.*?)`", row)}
    assert named == REPLACED.keys() | NOT_RUN
    script = "\n".join(blocks())
    assert all(len(pattern(name).findall(script)) == 1 for name in REPLACED)


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`((?:vicuna|scripts|docs|data|eval|docker)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name


def copied_checkout(folder: Path) -> Path:
    """The tracked files as they are now, with the checkout's environment."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.mark.slow
def test_the_commands_run_as_pasted(tmp_path: Path) -> None:
    for port in (8000, 7860, 8765):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)), f"port {port} is in use; the README's commands need it"
    folder = copied_checkout(tmp_path / "vicuna")
    script = "\n".join(blocks())
    for name, replacement in REPLACED.items():
        script = pattern(name).sub(replacement, script)
    script = re.sub(r"^(vicuna eval judge)", "vicuna eval rule-judge & sleep 5\n\\1", script, flags=re.MULTILINE)
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "HF_HUB_OFFLINE")}
    environment["PATH"] = os.pathsep.join(
        part for part in os.environ["PATH"].split(os.pathsep) if not part.startswith(str(ROOT / ".venv"))
    )
    environment |= {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    outputs = folder / "outputs"
    for name in ("cleaned/report.html", "tuned/model/model.safetensors", "tuned-by-many/model/model.safetensors",
                 "restored/model.safetensors", "restored.gguf", "imported/config.json", "report.html"):  # fmt: skip
        assert (outputs / name).exists(), name
    assert '"object":"chat.completion"' in done.stdout.replace(" ", "")
    assert (outputs / "restored/model.safetensors").read_bytes() == (
        outputs / "tuned/model/model.safetensors"
    ).read_bytes()
