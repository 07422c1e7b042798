"""Times `servegraph inspect` against `saved_model_cli show --all`: python inspect_speed.py --models DIR [--runs 5]

Makes the models first (see `inspect_models.py`; the data file of 10 GB is sparse). The two commands run in turn, so
that what else the machine does hits both; the table has medians and ranges. Both run from compiled bytecode, kept
beside the models. `--verify` is compared with reading the same file and doing nothing with it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
VERIFY_BYTES = 10**9

# What the project promises: how many times faster, and with how much less memory (None: no promise).
GOALS: dict[str, tuple[float, float | None]] = {
    "small_keras": (50, 25),
    "large_variables": (50, 25),
    "many_variables": (50, 25),
    "frozen": (50, 25),
    "million_nodes": (8, None),
}
VERIFY_GOAL = 0.9  # of the speed of reading alone


class Run(NamedTuple):
    """One process: wall time and peak memory."""

    seconds: float
    memory_mb: float


def run(command: Sequence[str], environment: dict[str, str]) -> Run:
    """Run a command to its end; what it prints is dropped."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # 1 is the finding that the model of 10 GB repeats itself
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(seconds, usage.ru_maxrss / 1024)


def compare(model: Path, runs: int, environment: dict[str, str]) -> tuple[list[Run], list[Run]]:
    """Run both commands in turn, once before for the bytecode and the disk's cache."""
    theirs = [str(BIN / "saved_model_cli"), "show", "--all", "--dir", str(model)]
    ours = [str(BIN / "servegraph"), "inspect", str(model)]
    run(theirs, environment)
    run(ours, environment)
    pairs = [(run(theirs, environment), run(ours, environment)) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def seconds_text(runs: list[Run]) -> str:
    """Median and range."""
    seconds = sorted(item.seconds for item in runs)
    return f"{statistics.median(seconds):.3f} [{seconds[0]:.3f}-{seconds[-1]:.3f}]"


def compare_models(directory: Path, runs: int, environment: dict[str, str]) -> bool:
    """Print the table; True if every goal is reached."""
    print("| model | saved_model_cli, s | servegraph inspect, s | faster | MB | MB | less memory |")
    print("|---|---|---|---|---|---|---|")
    reached = True
    for name, (faster_goal, memory_goal) in GOALS.items():
        theirs, ours = compare(directory / name, runs, environment)
        # The ratio of each pair that ran together, not of two medians: a busy minute is in both.
        faster = statistics.median(one.seconds / other.seconds for one, other in zip(theirs, ours, strict=True))
        memory = statistics.median(one.memory_mb / other.memory_mb for one, other in zip(theirs, ours, strict=True))
        their_mb = statistics.median(item.memory_mb for item in theirs)
        our_mb = statistics.median(item.memory_mb for item in ours)
        print(
            f"| {name} | {seconds_text(theirs)} | {seconds_text(ours)} | {faster:.0f}x (goal {faster_goal:.0f}) "
            f"| {their_mb:.0f} | {our_mb:.0f} | {memory:.0f}x{f' (goal {memory_goal:.0f})' if memory_goal else ''} |",
            flush=True,
        )
        reached &= faster >= faster_goal and (memory_goal is None or memory >= memory_goal)
    return reached


def compare_verify(directory: Path, runs: int) -> bool:
    """Print how fast checksums are compared against reading the same file; True if the goal is reached."""
    from servegraph.savedmodel.bundle_reader import CHUNK_BYTES, BundleReader
    from servegraph.savedmodel.bundle_writer import BundleWriter
    from servegraph.storage import open_dir

    prefix = directory / "verify/variables/variables"
    data = prefix.with_name("variables.data-00000-of-00001")
    if not data.exists():
        block = os.urandom(1 << 20)
        with BundleWriter(prefix) as writer:
            for number in range(10):
                rows = VERIFY_BYTES // 10 // len(block)
                writer.add(f"table_{number}", "uint8", (rows, len(block)), (block for _ in range(rows)))

    def read() -> float:
        started = time.perf_counter()
        with data.open("rb", buffering=0) as file:
            while file.read(CHUNK_BYTES):
                pass
        return time.perf_counter() - started

    def verify() -> float:
        started = time.perf_counter()
        with BundleReader(open_dir(directory / "verify")) as bundle:
            for entry in bundle.entries.values():
                bundle.verify(entry)
        return time.perf_counter() - started

    read()
    pairs = [(read(), verify()) for _ in range(max(runs, 9))]
    share = statistics.median(alone / compared for alone, compared in pairs)
    size_gb = data.stat().st_size / 1e9
    speeds = [statistics.median(size_gb / seconds for seconds in column) for column in zip(*pairs, strict=True)]
    print(f"\n--verify: {speeds[1]:.1f} GB/s, reading alone {speeds[0]:.1f} GB/s: {share:.2f} (goal {VERIFY_GOAL})")
    return share >= VERIFY_GOAL


def main() -> int:
    """Make the models, run, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where the models are, or are made")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only-verify", action="store_true")
    arguments = parser.parse_args()
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(arguments.models / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, HERE / "inspect_models.py", arguments.models], check=True, env=environment)
    reached = compare_verify(arguments.models, arguments.runs)
    if not arguments.only_verify:
        reached &= compare_models(arguments.models, arguments.runs, environment)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
