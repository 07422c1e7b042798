"""Which runs of a schedule on this machine are kept: each has a model of every step, so that they would fill the disk.

A deployed version has copies of its own and needs no run; that which made it stays all the same, as its record.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from servegraph_pipelines.run_record import StepOutputs

KEPT_RUNS = 3
_STARTED = re.compile(r"\d{4}(-\d\d){5}-\d{6}$")  # what kfp.local puts behind the name of a pipeline


def prune(root: Path) -> list[Path]:
    """Remove all runs below `root` but the newest and those whose versions are still deployed, and return them.

    Raises:
        OSError: one cannot be removed.
    """
    started = {run: match[0] for run in root.glob("*") if (match := _STARTED.search(run.name))}
    runs = sorted(started, key=started.__getitem__, reverse=True)
    kept = {*runs[:KEPT_RUNS], *_of_versions(runs)}
    gone = [run for run in runs if run not in kept]
    for run in gone:
        shutil.rmtree(run)
    return gone


def _of_versions(runs: list[Path]) -> Iterator[Path]:
    """Yield of runs, newest first, the last that deployed each version that is there.

    What is there on a service is not asked: of a model on one, that is the version of the newest run that deployed.
    """
    seen: set[tuple[str, str]] = set()
    for run in runs:
        with contextlib.suppress(ValueError, KeyError):  # of a run that was cut off
            deployed = StepOutputs(run, "deploy-version").json("deployment")
            target = deployed["target"]
            made = (target, deployed["resource" if target == "local" else "name"])
            if made not in seen and (target != "local" or Path(made[1]).is_dir()):
                yield run
            seen.add(made)
