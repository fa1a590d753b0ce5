"""The figures of a cleaning: gathered while the rows are written, then drawn by `report` and written as report.json.

The counts are the manifest's. From the rows come samples for every rule, the distribution of lengths and languages,
the groups of duplicates, the kinds of private data, and the figures of splitting.
"""

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vicuna.data.look.stats import describe_numbers
from vicuna.io.jsonl import JsonObject

SAMPLES_PER_RULE = 4
NUM_CLUSTERS = 10  # of duplicates, the largest
NUM_MEMBERS = 5  # named of each
DEDUP, LANGUAGE, PRIVACY = "dedup", "language", "privacy"  # names of steps
TIMES = re.compile(r"\d+")


class Figures:
    """Figures of the rows added so far. Kept are two numbers of each record, and the ids of duplicates that stay."""

    def __init__(self) -> None:
        self.num_messages, self.num_tokens = array("q"), array("q")
        self.languages: Counter[str] = Counter()
        self.languages_dropped: Counter[str] = Counter()
        self.samples: dict[str, list[JsonObject]] = {}
        self.steps: dict[str, str] = {}  # the step of each rule
        self.num_context = 0  # pieces that begin with rounds of an earlier piece
        self._clusters: dict[str, list[str]] = {}  # by the id that stays, the first of those merged into it
        self._cluster_sizes: Counter[str] = Counter()
        self._private: Counter[str] = Counter()

    def add_finding(self, row: JsonObject) -> None:
        """Take in a row of dropped.jsonl or repairs.jsonl."""
        rule = row["rule"]
        self.steps[rule] = row["step"]
        kept = self.samples.setdefault(rule, [])
        if len(kept) < SAMPLES_PER_RULE:
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
        """Take in a record that was written: `num_messages`, and what else is known of it."""
        self.num_messages.append(facts["num_messages"])
        if "num_tokens" in facts:
            self.num_tokens.append(facts["num_tokens"])
        if "language" in facts:
            self.languages[str(facts["language"])] += 1
        self.num_context += bool(facts.get("context_messages"))

    def to_dict(self, manifest: Mapping[str, Any], rules: Mapping[str, str]) -> JsonObject:
        """All figures, as in report.json.

        Args:
            rules: what each rule means.
        """
        counts = manifest["counts"]
        return {
            "records": {key: counts[key] for key in ("records_in", "kept", "dropped", "merged", "repaired")},
            "funnel": manifest["steps"],
            "dropped": self._rules(counts["rules"], rules),
            "repairs": self._rules(counts["repairs"], rules),
            "languages": _sorted_by_count(self.languages),
            "languages_dropped": _sorted_by_count(self.languages_dropped),
            "lengths": {
                name: describe_numbers(values)
                for name, values in (("messages", self.num_messages), ("tokens", self.num_tokens))
                if values
            },
            "duplicates": self._duplicates(),
            "private": _sorted_by_count(self._private),
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
            for rule, count in _sorted_by_count(counts).items()
        ]

    def _duplicates(self) -> JsonObject:
        sizes = Counter(size + 1 for size in self._cluster_sizes.values())
        largest = list(_sorted_by_count(self._cluster_sizes).items())[:NUM_CLUSTERS]
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


def _sorted_by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def clip_at_p99(values: Sequence[int]) -> tuple[list[int], int]:
    """Values clipped at their 99th percentile, so that a few large ones do not flatten a histogram; and that limit."""
    last = int(describe_numbers(values)["p99"]) if values else 0
    return [min(value, last) for value in values], last
