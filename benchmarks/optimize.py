"""Measures `servegraph optimize` on models of every kind: python optimize.py --models DIR [--data DATA] [--only NAME]

Makes the models first (see `optimize_models.py`), then, model by model: the tool with one set of rungs after the
other, the answers of every result against the original's, latencies in random turn inside one process, load time and
memory in fresh processes in turn, and the same model through LiteRT and ONNX Runtime. Prints tables as Markdown and
the goals. What was measured is kept in DIR/results, and `--print` prints all of it again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optimize_peers
import optimize_tables
from optimize_goals import result_key
from optimize_tool import optimize, size_bytes, watch

HERE = Path(__file__).parent
MODELS = (
    *("vgg16", "resnet50", "mobilenetv2", "digits", "digits-mobilenetv2", "mnist", "sms-text", "sms-transformer"),
    *("census", "tf1-builder", "module", "guesslang", "basic-pitch", "table", "big"),
)
QUICK = ("digits", "census", "module")
ASK_TO_MEASURE = ("big",)  # takes 10 GB of memory and half an hour: only by name
PEERED = ("vgg16", "resnet50", "mobilenetv2", "digits", "digits-mobilenetv2", "mnist", "module")

FOLD = ("strip", "share", "narrow", "fold", "tables")  # in the order of the ladder
SHORT = (*FOLD, "shorten")
SETS: dict[str, tuple[str, ...]] = {
    "lossless": ("strip", "share"),
    "fold": FOLD,
    "constants": (*FOLD, "constants"),
    "float16": (*SHORT, "halve"),
    "int8": (*SHORT, "halve", "quarter"),
    "int8 resident": (*SHORT, "halve", "quarter", "resident"),
    "int4": (*SHORT, "halve", "quarter", "eighth"),
    "int4 compressed": (*SHORT, "halve", "quarter", "eighth", "compress"),
}
QUICK_SETS = ("lossless", "float16", "int8")
BUDGETS = {"vgg16": "500MB", "census": "80kB"}  # the tool as a user calls it: a budget, all rungs
MEMORY_OF = ("lossless", "fold", "constants", "float16", "int8", "int8 resident", "int4")


class Effort(NamedTuple):
    """How long to measure: seconds for each latency table, fresh processes for each memory figure."""

    seconds: float
    processes: int


def run_json(command: Sequence[str]) -> Any:
    """Run a Python script of this folder and return the JSON document that it prints, or its error as text."""
    ran = watch([sys.executable, *command])
    if ran.code:
        return {"error": (ran.stderr.strip().splitlines() or [f"exit {ran.code}"])[-1][:200]}
    return json.loads(ran.stdout.splitlines()[-1])


def make_model(name: str, arguments: argparse.Namespace) -> str:
    """Make the model if it is not there; returns why it cannot be made, empty if it is there."""
    command = [sys.executable, str(HERE / "optimize_models.py"), str(arguments.models), name]
    command += ["--data", str(arguments.data)] if arguments.data else []
    made = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if made.returncode == 3:
        return made.stdout.strip()
    return "cannot be made" if made.returncode else ""


def optimize_all(name: str, folder: Path, sets: Sequence[str]) -> dict[str, Any]:
    """Run the tool with every set of rungs; returns a record by name of the set."""
    about = json.loads((folder / "about.json").read_text())
    # Random nets answer chaotically, and a frame of sound has no one answer: there the sizes are wanted, and what the
    # benchmark finds of the answers is printed as it is.
    tolerance = [] if about["label"] and not about["frames"] else ["--min-agreement", "0"]
    runs = {wanted: ["--rungs", ",".join(SETS[wanted]), *tolerance] for wanted in sets}
    if name in BUDGETS:
        runs[f"budget {BUDGETS[name]}"] = ["--budget", BUDGETS[name]]
    records = {}
    for wanted, options in runs.items():
        print(f"{name}: {wanted}", file=sys.stderr)
        out = folder / "results" / result_key(wanted)
        shutil.rmtree(out, ignore_errors=True)
        ran, answer = optimize(folder, out, options, about)
        record = {key: round(getattr(ran, key), 3) for key in ("seconds", "main_mb", "child_mb", "anonymous_mb")}
        record |= {"tree_mb": round(ran.tree_mb, 1), "options": " ".join(options), "code": ran.code}
        record |= {"bytes": size_bytes(out), "tool": answer} if isinstance(answer, dict) else {"error": answer}
        records[wanted] = record
    return records


def measure_memory(folder: Path, results: dict[str, Path], processes: int) -> dict[str, list[Any]]:
    """Load the original and the results in fresh processes, in turn."""
    paths = {"original": folder / "model", **{name: path for name, path in results.items() if name in MEMORY_OF}}
    found: dict[str, list[Any]] = {name: [] for name in paths}
    for _ in range(processes):
        for name, path in paths.items():
            found[name].append(run_json([str(HERE / "optimize_measure.py"), "memory", str(folder), str(path)]))
    return found


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one model; its results are removed again unless they are to be kept."""
    folder, effort = arguments.models / name, Effort(3, 1) if arguments.quick else Effort(arguments.seconds, 3)
    sets = arguments.set or (QUICK_SETS if arguments.quick else tuple(SETS))
    record: dict[str, Any] = {"model": name, "original_bytes": size_bytes(folder / "model")}
    record["about"] = json.loads((folder / "about.json").read_text())
    imported = watch([sys.executable, "-c", "import tensorflow"])
    record["import"] = {"seconds": imported.seconds, "main_mb": imported.main_mb, "anonymous_mb": imported.anonymous_mb}
    record["sets"] = optimize_all(name, folder, sets)
    results = {
        wanted: folder / "results" / result_key(wanted) for wanted, ran in record["sets"].items() if "bytes" in ran
    }
    paths = [str(path) for path in results.values()]
    script = str(HERE / "optimize_measure.py")
    if name not in ASK_TO_MEASURE:
        print(f"{name}: answers and latency", file=sys.stderr)
        record["answers"] = run_json([script, "answers", str(folder), *paths])
        record["latency"] = run_json([script, "latency", str(folder), str(effort.seconds), *paths])
    print(f"{name}: memory", file=sys.stderr)
    record["memory"] = measure_memory(folder, results, effort.processes)
    if name in PEERED and not arguments.quick and not arguments.skip_peers:
        print(f"{name}: LiteRT and ONNX Runtime", file=sys.stderr)
        record["peers"] = optimize_peers.compare(folder, arguments.models / "peers", results, effort.seconds)
    if not arguments.keep:
        shutil.rmtree(folder / "results", ignore_errors=True)  # there is none where every run failed
    return record


def main() -> int:
    """Measure and print; 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("bench-models"), help="where the models are, or are made")
    parser.add_argument(
        "--data", type=Path, help="folder with digits, mnist and sms-spam; models without it are skipped"
    )
    parser.add_argument("--only", action="append", choices=MODELS, help="this model; may be given several times")
    parser.add_argument("--set", action="append", choices=SETS, help="these rungs only; may be given several times")
    parser.add_argument("--quick", action="store_true", help="three small models, three sets, few rounds, no peers")
    parser.add_argument("--skip-peers", action="store_true", help="leave LiteRT and ONNX Runtime out")
    parser.add_argument("--seconds", type=float, default=20, help="for each latency table (at least five rounds)")
    parser.add_argument("--keep", action="store_true", help="keep the optimized models")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print what was measured before")
    arguments = parser.parse_args()
    arguments.models = arguments.models.resolve()
    # All processes run from compiled bytecode, kept beside the models: an import of TensorFlow is in every figure.
    os.environ["PYTHONPYCACHEPREFIX"] = str(arguments.models / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    records_dir = arguments.models / "results"
    records_dir.mkdir(parents=True, exist_ok=True)
    everything = QUICK if arguments.quick else [name for name in MODELS if name not in ASK_TO_MEASURE]
    names = arguments.only or ([] if arguments.only_print else everything)
    records = []
    if arguments.only_print:
        files = {name: records_dir / f"{name}.json" for name in arguments.only or MODELS}
        records = [json.loads(file.read_text()) for file in files.values() if file.exists()]
        names = []
    for name in names:
        why = make_model(name, arguments)
        if why:
            records.append({"model": name, "skipped": why})
            continue
        record = measure(name, arguments)
        (records_dir / f"{name}.json").write_text(json.dumps(record))
        records.append(record)
    return 0 if optimize_tables.show(records) else 1


if __name__ == "__main__":
    sys.exit(main())
