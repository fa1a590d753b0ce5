"""Where the shipped material is: the sample conversations of `data/` and the questions of `eval/`.

In a checkout both folders stand beside the package; in an installed wheel they lie inside it. Callers name a file as
`data/identity.jsonl` and need not know which it is.
"""

from pathlib import Path

from vicuna.errors import VicunaError

PACKAGE = Path(__file__).parent


def material(name: str) -> Path:
    """The path of a shipped file or folder, for example `eval/questions.jsonl`.

    Raises:
        VicunaError: the installation lacks it.
    """
    for root in (PACKAGE / "material", PACKAGE.parent):
        if (path := root / name).exists():
            return path
    raise VicunaError(f"{name} is missing from this installation of vicuna; install it again")
