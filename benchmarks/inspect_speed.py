"""Times `servegraph inspect` against `saved_model_cli show --all`: python inspect_speed.py --models DIR [--runs 5]

Makes the models first (see `inspect_models.py`; the data file of 10 GB is sparse). The two commands run in turn, so
that what else the machine does hits both; the table has medians and ranges. Both run from compiled bytecode, kept
beside the models. `--verify` is compared with `cat` of the same file.
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


class Goal(NamedTuple):
    """What the project promises for a model: how many times faster, and with how much less memory."""

    model: str
    faster: float
    less_memory: float | None = None
    most_runs: int = 100


GOALS = (
    Goal("small_keras", 50, 25),
    Goal("large_variables", 50, 25),
    Goal("many_variables", 50, 25),
    Goal("frozen", 50, 25),
    Goal("million_nodes", 8, most_runs=3),  # saved_model_cli takes minutes and 9 GB
)
VERIFY_GOAL = 0.9  # of the speed of cat


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
    """Run both commands in turn."""
    theirs = [str(BIN / "saved_model_cli"), "show", "--all", "--dir", str(model)]
    ours = [str(BIN / "servegraph"), "inspect", str(model)]
    pairs = [(run(theirs, environment), run(ours, environment)) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def seconds_text(runs: list[Run]) -> str:
    """Median and range."""
    seconds = sorted(item.seconds for item in runs)
    return f"{statistics.median(seconds):.3f} [{seconds[0]:.3f}-{seconds[-1]:.3f}]"


def compare_models(directory: Path, goals: Sequence[Goal], runs: int, environment: dict[str, str]) -> bool:
    """Print the table; True if every goal is reached."""
    print("| model | saved_model_cli, s | servegraph inspect, s | faster | MB | MB | less memory |")
    print("|---|---|---|---|---|---|---|")
    reached = True
    compare(directory / GOALS[0].model, 1, environment)  # writes the bytecode
    for goal in goals:
        theirs, ours = compare(directory / goal.model, min(runs, goal.most_runs), environment)
        pairs = list(zip(theirs, ours, strict=True))
        # The ratio of each pair that ran together, not of two medians: a busy minute is in both.
        faster = statistics.median(one.seconds / other.seconds for one, other in pairs)
        memory = statistics.median(one.memory_mb / other.memory_mb for one, other in pairs)
        memories = [statistics.median(item.memory_mb for item in column) for column in (theirs, ours)]
        memory_goal = f" (goal {goal.less_memory})" if goal.less_memory else ""
        print(
            f"| {goal.model} | {seconds_text(theirs)} | {seconds_text(ours)} | {faster:.0f}x (goal {goal.faster}) "
            f"| {memories[0]:.0f} | {memories[1]:.0f} | {memory:.0f}x{memory_goal} |",
            flush=True,
        )
        reached &= faster >= goal.faster and (goal.less_memory is None or memory >= goal.less_memory)
    return reached


def compare_verify(directory: Path, runs: int) -> bool:
    """Print how fast checksums are compared against `cat` of the same file; True if the goal is reached.

    Once from the disk, as after a download, and once from the disk's cache.
    """
    from servegraph.savedmodel.bundle_writer import BundleWriter

    model = directory / "verify"
    data = model / "variables/variables.data-00000-of-00001"
    if not data.exists():
        block = os.urandom(1 << 20)
        with BundleWriter(model / "variables/variables") as writer:
            for number in range(10):
                rows = VERIFY_BYTES // 10 // len(block)
                writer.add(f"table_{number}", "uint8", (rows, len(block)), (block for _ in range(rows)))
    size_gb = data.stat().st_size / 1e9
    reached = True
    for state in ("from the disk", "from the cache"):
        pairs = []
        for _ in range(runs + 1):
            times = []
            for read in (_cat, _verify):
                if state == "from the disk":
                    _evict(data)
                times.append(read(model, data))
            pairs.append(times)
        pairs = pairs[1:]  # the first one fills the cache
        share = statistics.median(alone / compared for alone, compared in pairs)
        alone, compared = (
            statistics.median(size_gb / seconds for seconds in column) for column in zip(*pairs, strict=True)
        )
        print(f"--verify {state}: {compared:.2f} GB/s, cat {alone:.2f} GB/s: {share:.2f} (goal {VERIFY_GOAL})")
        reached &= share >= VERIFY_GOAL
    return reached


def _evict(file: Path) -> None:
    """Make the next reader fetch the file from the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cat(model: Path, data: Path) -> float:
    started = time.perf_counter()
    subprocess.run(["cat", data], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _verify(model: Path, data: Path) -> float:
    from servegraph.inspect_graph.integrity import verify_tensors
    from servegraph.savedmodel.bundle_reader import BundleReader
    from servegraph.storage import open_dir

    started = time.perf_counter()
    with BundleReader(open_dir(model)) as bundle:
        if list(verify_tensors(bundle)):
            raise SystemExit(f"{data} is damaged")
    return time.perf_counter() - started


def main() -> int:
    """Make the models, run, and print the tables."""
    names = [goal.model for goal in GOALS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where the models are, or are made")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[*names, "verify"], choices=[*names, "verify"], metavar="ROW")
    arguments = parser.parse_args()
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(arguments.models / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, HERE / "inspect_models.py", arguments.models], check=True, env=environment)
    # First, while this process is small: the peak that the system tells of a command is never below its parent's.
    goals = [goal for goal in GOALS if goal.model in arguments.only]
    reached = not goals or compare_models(arguments.models, goals, arguments.runs, environment)
    if "verify" in arguments.only:
        reached &= compare_verify(arguments.models, arguments.runs)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
