"""What the project promises of `servegraph optimize`, and whether the figures keep it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

MB = 10**6
Record = dict[str, Any]

MOST_MB = {"lossless": 554, "int8": 139, "int4": 78}  # of VGG16; the budget of 500 MB is checked by what fits
MOST_OF_COPY, MOST_DROP = 0.26, 0.005
LEAST_SPEED = 0.97
FASTER = {("mobilenetv2", "fold"): 1.5, ("resnet50", "fold"): 1.1, ("mobilenetv2", "constants"): 1.6}
WITHIN_LITERT = 1.03
TOOL_MB, BIG_TOOL_MB = 700, 2000
SECONDS = {("vgg16", "int8"): 10.0, ("census", "budget 80kB"): 15.0}  # from start to end of the command
MOST_RESIDENT = 1.0
KERAS_EXPORTS = (
    *("vgg16", "resnet50", "mobilenetv2", "digits", "digits-mobilenetv2", "mnist"),
    *("sms-text", "sms-transformer"),
)
MOST_RESIDENT_KERAS = 0.6


class Goal(NamedTuple):
    """One promise and what was measured."""

    what: str
    goal: str
    measured: str
    reached: bool


def goals(record: Record) -> Iterator[Goal]:
    """Compare a model's figures with what the project promises."""
    for promised in (_sizes, _speed, _resident, _peers, _tool):
        yield from promised(record)


def ratio(times: dict[str, list[float]], name: str) -> float:
    """Return the median ratio of the calls that ran in the same round: a busy moment is in both."""
    return statistics.median(one / other for one, other in zip(times["original"], times[name], strict=True))


def resident(record: Record, name: str) -> float:
    """Return the memory after one answer, as a part of the original's; NaN where one did not run."""
    medians = [
        statistics.median(run.get("asked_mb", float("nan")) for run in record["memory"][key])
        for key in (name, "original")
    ]
    return medians[0] / medians[1]


def float32_copy(record: Record) -> int | None:
    """Return the bytes of the model with every weight once, in float32: what the lossless rungs leave."""
    return record["sets"].get("lossless", {}).get("bytes")


def result_key(name: str) -> str:
    """Return the name of the folder of a set's result."""
    return name.replace(" ", "-")


def _sizes(record: Record) -> Iterator[Goal]:
    model, answers = record["model"], record.get("answers", {})
    for name, ran in record["sets"].items():
        found = answers.get(result_key(name), {})
        if "bytes" not in ran:
            yield Goal(f"{model} {name}", "runs", ran["error"], False)
            continue
        if name == "lossless" and found:
            difference = found["max_abs_diff"]
            yield Goal(f"{model} {name}, largest difference", "0", f"{difference:g}", difference == 0)
        if model == "vgg16" and name in MOST_MB:
            size = ran["bytes"] / MB
            yield Goal(f"{model} {name}", f"<= {MOST_MB[name]} MB", f"{size:.2f} MB", size <= MOST_MB[name])
        if model == "vgg16" and name.startswith("budget"):
            agreement = found.get("agreement", 0.0)
            text = f"{ran['bytes'] / MB:.2f} MB, {agreement:.3f}"
            yield Goal(f"{model} {name}", "fits, agreement 1.0", text, ran["tool"]["fits"] and agreement == 1)
        if name == "int8" and record["about"]["label"]:
            yield from _trained(record, ran["bytes"], found)


def _trained(record: Record, size: int, found: Record) -> Iterator[Goal]:
    part = size / (float32_copy(record) or size)
    yield Goal(
        f"{record['model']} int8, of one float32 copy", f"<= {MOST_OF_COPY}", f"{part:.3f}", part <= MOST_OF_COPY
    )
    if found.get("metric") is not None:
        drop = record["answers"]["original"]["metric"] - found["metric"]
        kept = drop <= MOST_DROP + 1e-9
        yield Goal(f"{record['model']} int8, accuracy lost", "<= 0.5 points", f"{100 * drop:.2f}", kept)


def _speed(record: Record) -> Iterator[Goal]:
    for batch in ("1", "32"):
        for name in record.get("latency", {}).get(batch, {}):
            if name.startswith("original"):
                continue
            least = FASTER.get((record["model"], name), LEAST_SPEED)
            if name == "constants" and batch == "32":
                least = LEAST_SPEED
            measured = ratio(record["latency"][batch], name)
            what = f"{record['model']} {name}, speed at batch {batch}"
            yield Goal(what, f">= {least}", f"{measured:.3f}", measured >= least)


def _resident(record: Record) -> Iterator[Goal]:
    most = MOST_RESIDENT_KERAS if record["model"] in KERAS_EXPORTS else MOST_RESIDENT
    for name in record["memory"]:
        if name != "original":
            part = resident(record, name)
            yield Goal(f"{record['model']} {name}, memory when served", f"<= {most}", f"{part:.2f}", part <= most)


def _peers(record: Record) -> Iterator[Goal]:
    found = record.get("peers", {}).get("bytes", {})
    for name in ("float16", "int8"):
        theirs, ours = found.get(f"LiteRT {name}"), record["sets"].get(name, {}).get("bytes")
        if theirs and ours:
            part = ours / theirs
            what = f"{record['model']} {name}, size of LiteRT's"
            yield Goal(what, f"<= {WITHIN_LITERT}", f"{part:.3f}", part <= WITHIN_LITERT)


def _tool(record: Record) -> Iterator[Goal]:
    model, bare = record["model"], record["import"]["main_mb"]
    most_mb = {"vgg16": TOOL_MB, "big": BIG_TOOL_MB}.get(model)
    for name, ran in record["sets"].items():
        if most_mb:
            above = ran["main_mb"] - bare
            yield Goal(f"{model} {name}, memory of the tool", f"<= {most_mb} MB", f"{above:.0f} MB", above <= most_mb)
        most_s = SECONDS.get((model, name))
        if most_s:
            yield Goal(f"{model} {name}, time", f"<= {most_s:g} s", f"{ran['seconds']:.1f} s", ran["seconds"] <= most_s)
