"""The judge's prompts of `eval/judge_prompts/`, filled in with a question and its answers.

Before: `plan`, which chooses a prompt for each question. After: `judge` sends it; `rule_judge` and the report parse it
with `parse_sections`. Each text to be judged stands between two marks with a nonce that occurs in none of the texts, so
that no answer can end its own section and continue as if it were the prompt.
"""

import bisect
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vicuna.conversation import Message
from vicuna.eval.questions import content_hash
from vicuna.eval.quoting import visible
from vicuna.material import material

Mode = Literal["pair", "single"]
_OPENING = re.compile(r"^\[(?P<title>[^\[\]\n]{1,80}) (?P<mark>[0-9a-f]{12})\]\n", re.M)
_END = re.compile(r"^\[end (?P<title>[^\[\]\n]{1,80}) (?P<mark>[0-9a-f]{12})\]$", re.M)


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt file. `verdict_text` and `verdict_json` are the two ways to ask for the verdict."""

    name: str
    mode: Mode
    uses_reference: bool
    system: str
    user: str
    verdict_text: str
    verdict_json: str

    @property
    def hash(self) -> str:
        """A name for the exact wording."""
        return content_hash(self.name, self.mode, self.system, self.user, self.verdict_text, self.verdict_json)

    @property
    def schema(self) -> dict[str, Any]:
        """The verdict as a JSON schema; the explanation stands first, so that it is written first."""
        verdict: dict[str, Any] = {"verdict": {"type": "string", "enum": ["A", "B", "tie"]}}
        if self.mode == "single":
            verdict = {"score": {"type": "number", "description": "from 1 to 10"}}
        properties = {"explanation": {"type": "string"}, **verdict}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def verdict_form(self, *, structured: bool) -> str:
        """How the verdict is asked for: as a JSON object or as a last line."""
        return (self.verdict_json if structured else self.verdict_text).strip()

    def messages(self, texts: Mapping[str, str], *, structured: bool) -> list[Message]:
        """The prompt with the texts (`question`, `answer` or `answer_a` and `answer_b`, `reference`) in place."""
        fields = {**texts, "mark": _nonce(texts), "verdict_form": self.verdict_form(structured=structured)}
        # One pass over the template: braces inside the texts are never looked at.
        user = re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], self.user)
        return [Message(role="system", content=self.system.strip()), Message(role="user", content=user.strip())]


def shipped_prompt(mode: Mode, *, uses_reference: bool) -> JudgePrompt:
    """The project's own prompt for a mode."""
    path = material(f"eval/judge_prompts/{mode}{'_reference' if uses_reference else ''}.toml")
    return JudgePrompt(**tomllib.loads(path.read_text("utf-8")))


def parse_sections(prompt: str) -> dict[str, str]:
    """The marked texts of a filled-in prompt by title (`question`, `answer A`, ...); empty if it has none."""
    ends: dict[tuple[str, str], list[int]] = {}
    for match in _END.finditer(prompt):
        ends.setdefault((match["title"], match["mark"]), []).append(match.start())
    sections: dict[str, str] = {}
    position = 0
    for match in _OPENING.finditer(prompt):
        places = ends.get((match["title"], match["mark"]), [])
        index = bisect.bisect_right(places, match.end())
        if match.start() >= position and index < len(places):
            sections.setdefault(match["title"], prompt[match.end() : places[index] - 1])
            position = places[index]
    return sections


def _nonce(texts: Mapping[str, str]) -> str:
    """A word of 12 hex digits that occurs in none of the texts: their hash, hashed again while one contains it.

    Nor in what a reader might take for it: with capitals, with invisible signs inside, in wide digits.
    """
    nonce = content_hash(dict(texts))[:12]
    seen = [visible(text).casefold() for text in texts.values()]
    while any(nonce in text for text in seen):
        nonce = content_hash(nonce)[:12]
    return nonce
