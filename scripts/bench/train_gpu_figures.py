"""Measurements of `train_gpu.py` as lines, as the 40 layers of the whole 13B, and as ratios."""

from typing import Any

LAYERS_OF_13B = 40


def line_of(found: dict[str, Any]) -> str:
    """One measurement's figures."""
    mfu = "-" if found["mfu"] is None else f"{found['mfu']:.1%}"
    memory, planned = (
        "-" if found.get(name) is None else f"{found[name] / 2**30:.2f}" for name in ("memory_bytes", "planned_bytes")
    )
    return (
        f"{1000 * found['seconds']:>9.1f}{found['tokens_per_second']:>10,.0f}{mfu:>8}{memory:>7}{planned:>9}"
        f"{found['loss']:>9.4f}"
    )


def fit_lines(rows: list[dict[str, Any]], peak: float | None) -> list[dict[str, Any]]:
    """t = a + b L through the two layer counts of each kind, and what 40 layers would take."""
    fits = []
    kinds = {row["kind"] for row in rows if row["model"].startswith("13B")}
    for kind in sorted(kinds):
        found = [row for row in rows if row["model"].startswith("13B") and row["kind"] == kind and "seconds" in row]
        if len(found) != 2:
            continue
        (low, high), gap = found, found[1]["layers"] - found[0]["layers"]

        def at_40(name: str, low: Any = low, high: Any = high, gap: int = gap) -> float:
            slope = (high[name] - low[name]) / gap
            return float(low[name] + slope * (LAYERS_OF_13B - low["layers"]))

        seconds, flops = at_40("seconds"), at_40("flops")
        tokens = low["tokens_per_second"] * low["seconds"]
        mfu = flops / seconds / peak if peak else None
        words = f"13B, {kind}: 40 layers from {low['layers']} and {high['layers']}: {tokens / seconds:,.0f} tokens/s"
        words += f", {mfu:.1%} MFU" if mfu else ""
        fits.append({"kind": kind, "tokens_per_second": tokens / seconds, "mfu": mfu, "words": words})
    return fits


def make_ratios(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Our best kind against the Trainer, and the planner's memory against the device's."""
    ratios: dict[str, float | None] = {}
    for model in sorted({row["model"] for row in rows}):
        here = [row for row in rows if row["model"] == model and "seconds" in row]
        ours = [row["tokens_per_second"] for row in here if row["kind"] != "Trainer"]
        theirs = [row["tokens_per_second"] for row in here if row["kind"] == "Trainer"]
        key = f"{model.lower().replace(' x', '_layers_')}_vs_trainer_tokens_per_s"
        ratios[key] = max(ours) / theirs[0] if ours and theirs else None
    errors = [
        abs(row["planned_bytes"] / row["memory_bytes"] - 1)
        for row in rows
        if row.get("planned_bytes") and row.get("memory_bytes") and "compiled" not in row["kind"]
    ]
    ratios["planned_memory_largest_error"] = max(errors) if errors else None
    return ratios
