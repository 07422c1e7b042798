"""Runs `servegraph optimize` and watches the time and memory of its process and of those that it starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
INTERVAL_S = 0.02
MB = 10**6


@dataclass
class Watched:
    """A command that ran: its wall time and the peaks of its memory, in MB.

    `main_mb` and `child_mb` are the high-water marks of the process itself and of the largest process below it;
    `anonymous_mb` is the highest seen of the main process without the files it maps; `tree_mb` of all together.
    """

    seconds: float = 0.0
    main_mb: float = 0.0
    child_mb: float = 0.0
    anonymous_mb: float = 0.0
    tree_mb: float = 0.0
    code: int = 0
    stdout: str = ""
    stderr: str = ""
    marks: dict[int, float] = field(default_factory=dict)


def watch(command: Sequence[str], environment: dict[str, str] | None = None) -> Watched:
    """Run a command to its end and look at its memory as it goes."""
    found = Watched()
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment or _quiet())
        while process.poll() is None:
            _look(process.pid, found)
            time.sleep(INTERVAL_S)
        found.seconds, found.code = time.perf_counter() - started, process.returncode
        for stream, name in ((stdout, "stdout"), (stderr, "stderr")):
            stream.seek(0)
            setattr(found, name, stream.read())
    found.main_mb = found.marks.pop(process.pid, 0.0)
    found.child_mb = max(found.marks.values(), default=0.0)
    return found


def _quiet() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def _look(main: int, found: Watched) -> None:
    tree = 0.0
    for pid in _descendants(main):
        memory = _memory(pid)
        if not memory:
            continue
        # The mark falls when a forked process becomes another program; only then it is its own: keep the latest.
        found.marks[pid] = memory["VmHWM"]
        tree += memory["VmRSS"]
        if pid == main:
            found.anonymous_mb = max(found.anonymous_mb, memory["RssAnon"])
    found.tree_mb = max(found.tree_mb, tree)


def _descendants(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (OSError, ValueError):
        children = []
    return [pid, *(below for child in children for below in _descendants(child))]


def _memory(pid: int) -> dict[str, float]:
    """Return MB by name from /proc, nothing if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {name: int(kib) * 1024 / MB for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)}


def optimize(folder: Path, out: Path, options: Sequence[str], about: Mapping[str, Any]) -> tuple[Watched, Any]:
    """Optimize the model in `folder`; returns how it ran, and the JSON document or the error's line."""
    samples = folder / "samples.jsonl"
    if about["label"] is not None and samples.exists():
        options = [*options, "--samples", str(samples)]
        options += [] if about["frames"] else ["--label", about["label"]]  # the tool knows one label a record
    ran = watch(_command(folder / "model", out, options))
    if ran.code in (0, 1) and ran.stdout.startswith("{"):
        return ran, json.loads(ran.stdout)
    lines = [line for line in ran.stderr.splitlines() if line.strip()]
    return ran, next((line for line in lines if line.startswith("error")), f"exit {ran.code}: {lines[-1:]}")


def _command(model: Path, out: Path, options: Sequence[str]) -> list[str]:
    return [str(BIN / "servegraph"), "optimize", str(model), str(out), "--json", *options]


def size_bytes(path: Path) -> int:
    """Return the bytes of all files below a path, or of the file itself."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
