"""The figures of a cleaning are those of its rows."""

from pathlib import Path

from vicuna.data.look.figures import Figures, clip_at_p99
from vicuna.io.jsonl import read_json, read_jsonl


def test_figures_are_those_of_the_rows(result: Path) -> None:
    figures, manifest = read_json(result / "report.json"), read_json(result / "manifest.json")
    rows = {name: list(read_jsonl(result / f"{name}.jsonl")) for name in ("records", "dropped", "repairs")}
    assert {rule["rule"]: rule["count"] for rule in figures["dropped"]} == manifest["counts"]["rules"]
    assert {rule["rule"]: rule["count"] for rule in figures["repairs"]} == manifest["counts"]["repairs"]
    for rule in [*figures["dropped"], *figures["repairs"]]:
        found = [row for row in rows["dropped"] + rows["repairs"] if row["rule"] == rule["rule"]]
        assert len(found) == rule["count"]
        first = [{key: row[key] for key in ("id", "turn", "source", "evidence")} for row in found[:4]]
        assert rule["samples"] == first
        assert rule["meaning"]
    assert figures["lengths"]["messages"]["total"] == sum(len(row["messages"]) for row in rows["records"])
    assert figures["lengths"]["tokens"]["total"] == sum(row["num_tokens"] for row in rows["records"])
    assert figures["languages_dropped"] == {"de": 1}
    assert sum(figures["languages"].values()) == len(rows["records"])
    assert figures["funnel"] == manifest["steps"]


def test_duplicates_private_data_and_splitting_are_told(result: Path) -> None:
    figures = read_json(result / "report.json")
    assert figures["duplicates"] == {
        "clusters": 2,
        "clusters_by_size": {"2": 1, "8": 1},
        "largest": [
            {"kept": "good-0", "size": 8, "some_merged": [f"copy-{number}" for number in range(5)]},
            {"kept": "good-1", "size": 2, "some_merged": ["again"]},
        ],
    }
    assert figures["private"] == {"email": 2}
    split = figures["split"]
    assert split["records_split"] == 1
    assert split["pieces"] > 2
    assert 0 < split["pieces_with_context"] < split["pieces"]
    assert split["rounds_in"] == split["rounds_out"] + split["rounds_dropped"]
    assert split["over_budget"] == 0


def test_a_budget_that_is_passed_is_told() -> None:
    figures = Figures()
    for number in (5, 11, 12):
        figures.add_record({"num_messages": 2, "num_tokens": number})
    counts = dict.fromkeys(("split", "pieces", "rounds_in", "rounds_out", "rounds_dropped"), 0)
    counts |= dict.fromkeys(("records_in", "kept", "dropped", "merged", "repaired"), 0)
    manifest = {"counts": counts | {"rules": {}, "repairs": {}}, "steps": [], "options": {"max_tokens": 10}}
    assert figures.to_dict(manifest, {})["split"]["over_budget"] == 2


def test_giants_do_not_squeeze_a_histogram() -> None:
    values, last = clip_at_p99([*range(1000), 10**9])
    assert max(values) == last == 990
    assert len(values) == 1001
    assert clip_at_p99([]) == ([], 0)
