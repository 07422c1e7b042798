"""Prints what `optimize.py` measured as Markdown tables, and the goals beside the figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from optimize_goals import MB, Record, float32_copy, goals, ratio, resident, result_key


def show(records: Sequence[Record]) -> bool:
    """Print all tables; True if every goal was reached."""
    measured = [record for record in records if "skipped" not in record]
    for record in records:
        if "skipped" in record:
            print(f"{record['model']} was skipped: {record['skipped']}.")
    print(f"\nMedians and ratios of what ran side by side. 1 MB = 10^6 bytes. {NOTE}\n")
    for title, header, rows in (
        ("Size and answers", SIZE_HEADER, sizes(measured)),
        ("Latency in a session, as a ratio", LATENCY_HEADER, latencies(measured)),
        ("Loading and memory of what is served", MEMORY_HEADER, memories(measured)),
        ("Time and memory of the tool", TOOL_HEADER, tools(measured)),
        ("Beside LiteRT and ONNX Runtime", PEER_HEADER, peers(measured)),
    ):
        _table(title, header, rows)
    found = [goal for record in measured for goal in goals(record)]
    marks = ((g.what, g.goal, g.measured, "yes" if g.reached else "**no**") for g in found)
    _table("Goals", ("what", "goal", "measured", "reached"), marks)
    return all(goal.reached for goal in found)


NOTE = "Above 1 is faster than the original; `original again` shows the noise."
SIZE_HEADER = (
    *("model", "rungs", "MB", "of the original", "of one float32 copy"),
    *("accuracy", "agreement", "largest difference"),
)
LATENCY_HEADER = ("model", "rungs", "batch 1", "batch 32", "ms at 1", "ms at 32")
MEMORY_HEADER = ("model", "rungs", "load, s", "first answer, s", "MB loaded", "MB after an answer", "of the original")
TOOL_HEADER = ("model", "rungs", "s", "MB above the import", "of it no file", "MB of the largest child", "MB of all")
PEER_HEADER = ("model", "variant", "MB", "agreement", "batch 1", "batch 32", "made in, s")


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if lines:
        print(f"## {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
        print("\n".join(lines), flush=True)
        print()


def sizes(records: Sequence[Record]) -> Iterator[Sequence[str]]:
    """One row a model and set of rungs."""
    for record in records:
        answers = record.get("answers", {})
        metric = answers.get("original", {}).get("metric")
        original = record["original_bytes"]
        yield (
            record["model"],
            "original",
            f"{original / MB:.2f}",
            "1",
            _of_copy(record, original),
            _number(metric),
            "",
            "",
        )
        for name, ran in record["sets"].items():
            if "error" in ran:
                yield (record["model"], name, ran["error"], "", "", "", "", "")
                continue
            found = answers.get(result_key(name), {})
            yield (
                record["model"],
                name + _undone(ran),
                f"{ran['bytes'] / MB:.2f}",
                f"{ran['bytes'] / original:.3f}",
                _of_copy(record, ran["bytes"]),
                _number(found.get("metric")),
                _number(found.get("agreement")),
                f"{found['max_abs_diff']:.2g}" if "max_abs_diff" in found else "",
            )


def _undone(ran: Record) -> str:
    undone = [
        step["name"] for step in ran["tool"].get("steps", ()) if not step["kept"] and step["agreement"] is not None
    ]
    return f" (undone: {', '.join(undone)})" if undone else ""


def latencies(records: Sequence[Record]) -> Iterator[Sequence[str]]:
    """One row a model and variant: the median over the rounds of the original's time by the variant's."""
    for record in records:
        found = record.get("latency", {})
        if "error" in found:
            yield (record["model"], found["error"], "", "", "", "")
            continue
        for name in found.get("1", {}):
            if name == "original":
                continue
            times = [found[batch][name] for batch in ("1", "32")]
            ratios = [f"{ratio(found[batch], name):.2f}" for batch in ("1", "32")]
            yield (record["model"], name, *ratios, *(f"{statistics.median(column):.2f}" for column in times))


def memories(records: Sequence[Record]) -> Iterator[Sequence[str]]:
    """One row a model and variant, each figure the median of fresh processes."""
    for record in records:
        for name, runs in record["memory"].items():
            good = [run for run in runs if "error" not in run]
            if not good:
                yield (record["model"], name, runs[0]["error"], "", "", "", "")
                continue
            load, first, loaded, asked = (
                statistics.median(run[key] for run in good) for key in ("load_s", "first_s", "loaded_mb", "asked_mb")
            )
            part = f"{resident(record, name):.2f}"
            yield (record["model"], name, f"{load:.2f}", f"{first:.2f}", f"{loaded:.0f}", f"{asked:.0f}", part)


def tools(records: Sequence[Record]) -> Iterator[Sequence[str]]:
    """One row a model and set: the tool beside a bare import of TensorFlow."""
    for record in records:
        bare = record["import"]
        zero = (f"{bare['main_mb']:.0f}", f"{bare['anonymous_mb']:.0f}", "", "")
        yield (record["model"], "import tensorflow", f"{bare['seconds']:.1f}", *zero)
        for name, ran in record["sets"].items():
            above = f"{ran['main_mb'] - bare['main_mb']:.0f}"
            plain = f"{ran['anonymous_mb'] - bare['anonymous_mb']:.0f}"
            children = f"{ran['child_mb']:.0f}" if ran["child_mb"] >= 1 else ""
            yield (record["model"], name, f"{ran['seconds']:.1f}", above, plain, children, f"{ran['tree_mb']:.0f}")


def peers(records: Sequence[Record]) -> Iterator[Sequence[str]]:
    """One row a model and variant; all of one model ran in one process."""
    for record in records:
        found = record.get("peers")
        if not found:
            continue
        if "error" in found:
            yield (record["model"], found["error"], "", "", "", "", "")
            continue
        ours = {f"servegraph {result_key(name)}": ran.get("bytes") for name, ran in record["sets"].items()}
        for name in found["latency"]["1"]:
            size = found["bytes"].get(name) or ours.get(name) or record["original_bytes"]
            agreement = f"{found['answers'][name]['agreement']:.3f}"
            ratios = [f"{ratio(found['latency'][batch], name):.2f}" for batch in ("1", "32")]
            made = found["conversion_s"].get(name.rpartition(" ")[0], "")
            yield (record["model"], name, f"{size / MB:.2f}", agreement, *ratios, str(made))
        for name, why in found["failed"].items():
            yield (record["model"], name, why.replace("|", "/"), "", "", "", "")


def _of_copy(record: Record, size: int) -> str:
    copy = float32_copy(record)
    return f"{size / copy:.3f}" if copy else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
