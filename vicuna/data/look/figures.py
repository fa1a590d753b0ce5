"""What a cleaning looked like, in figures: gathered while the rows are written, then drawn by `report` or kept as JSON.

The counts are the manifest's. Added here is what only the rows know: examples of every rule, how lengths and languages
are spread, which records say the same, what was private, how the long ones were split.
"""

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vicuna.data.look.stats import spread
from vicuna.io.jsonl import JsonObject

NUM_SAMPLES = 4  # for each rule
NUM_CLUSTERS = 10  # of duplicates, the largest
NUM_MEMBERS = 5  # named of each
DEDUP, LANGUAGE, PRIVACY = "dedup", "language", "privacy"  # names of steps
TIMES = re.compile(r"\d+")


class Figures:
    """What the report needs of the rows. It keeps two numbers for each record, and the ids of merged ones' keepers."""

    def __init__(self) -> None:
        self.num_messages, self.num_tokens = array("q"), array("q")
        self.languages: Counter[str] = Counter()
        self.languages_dropped: Counter[str] = Counter()
        self.samples: dict[str, list[JsonObject]] = {}
        self.steps: dict[str, str] = {}  # of each rule
        self.num_context = 0  # pieces that begin with rounds of an earlier one
        self._clusters: dict[str, list[str]] = {}  # by the id that stays, the first of those merged into it
        self._cluster_sizes: Counter[str] = Counter()
        self._private: Counter[str] = Counter()

    def add_finding(self, row: JsonObject) -> None:
        """A row of dropped.jsonl or repairs.jsonl."""
        rule = row["rule"]
        self.steps[rule] = row["step"]
        kept = self.samples.setdefault(rule, [])
        if len(kept) < NUM_SAMPLES:
            kept.append({key: row[key] for key in ("id", "turn", "source", "evidence")})
        if row["step"] == DEDUP:
            self._cluster_sizes[row["evidence"]] += 1
            members = self._clusters.setdefault(row["evidence"], [])
            if len(members) < NUM_MEMBERS:
                members.append(row["id"])
        elif row["step"] == LANGUAGE:
            self.languages_dropped[row["evidence"].split()[0]] += 1
        elif row["step"] == PRIVACY:
            times = TIMES.match(row["evidence"])
            self._private[rule] += int(times[0]) if times else 1

    def add_record(self, facts: Mapping[str, Any]) -> None:
        """A record that came out: `num_messages`, and what else is known of it."""
        self.num_messages.append(facts["num_messages"])
        if "num_tokens" in facts:
            self.num_tokens.append(facts["num_tokens"])
        if "language" in facts:
            self.languages[str(facts["language"])] += 1
        self.num_context += bool(facts.get("context_messages"))

    def to_dict(self, manifest: Mapping[str, Any], rules: Mapping[str, str]) -> JsonObject:
        """All figures as JSON has them.

        Args:
            rules: what each rule means.
        """
        counts = manifest["counts"]
        return {
            "records": {key: counts[key] for key in ("records_in", "kept", "dropped", "merged", "repaired")},
            "funnel": manifest["steps"],
            "dropped": self._rules(counts["rules"], rules),
            "repairs": self._rules(counts["repairs"], rules),
            "languages": _by_count(self.languages),
            "languages_dropped": _by_count(self.languages_dropped),
            "lengths": {
                name: spread(values)
                for name, values in (("messages", self.num_messages), ("tokens", self.num_tokens))
                if values
            },
            "duplicates": self._duplicates(),
            "private": _by_count(self._private),
            "split": self._split(manifest),
        }

    def _rules(self, counts: Mapping[str, int], rules: Mapping[str, str]) -> list[JsonObject]:
        return [
            {
                "rule": rule,
                "step": self.steps[rule],
                "count": count,
                "meaning": rules[rule],
                "samples": self.samples[rule],
            }
            for rule, count in _by_count(counts).items()
        ]

    def _duplicates(self) -> JsonObject:
        sizes = Counter(size + 1 for size in self._cluster_sizes.values())
        largest = list(_by_count(self._cluster_sizes).items())[:NUM_CLUSTERS]
        return {
            "clusters": len(self._cluster_sizes),
            "clusters_by_size": {str(size): number for size, number in sorted(sizes.items())},
            "largest": [
                {"kept": kept, "size": size + 1, "some_merged": self._clusters[kept]} for kept, size in largest
            ],
        }

    def _split(self, manifest: Mapping[str, Any]) -> JsonObject:
        counts, budget = manifest["counts"], manifest["options"].get("max_tokens")
        return {
            "template": manifest["options"].get("template"),
            "max_tokens": budget,
            "records_split": counts["split"],
            "pieces": counts["pieces"],
            "pieces_with_context": self.num_context,
            "rounds_in": counts["rounds_in"],
            "rounds_out": counts["rounds_out"],
            "rounds_dropped": counts["rounds_dropped"],
            "answers_cut": counts["repairs"].get("answer_cut", 0),
            "over_budget": 0 if budget is None else sum(number > budget for number in self.num_tokens),
        }


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def without_tail(values: Sequence[int]) -> tuple[list[int], int]:
    """Values for a histogram that a few giants do not squeeze flat: all above the last is the last, which is told."""
    last = int(spread(values)["p99"]) if values else 0
    return [min(value, last) for value in values], last
