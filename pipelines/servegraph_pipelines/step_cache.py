"""Take the outputs of a step from an earlier run on this machine where its key is the same.

Only what is a function of its key is taken: four components, on this machine's files. What asks the day, the machine or
a service (`choose_machine`, `measure`, `deploy_version`, …) runs every time, and so do other people's components, whose
code this does not know.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

import servegraph
from servegraph.trained.trainer import comes_along
from servegraph_pipelines import step_keys
from servegraph_pipelines.step_keys import StepKey

PURE = ("train", "export_serving_graph", "optimize", "inspect_graph")


class StepCache:
    """The runs below one folder. With `takes` false every step runs, and leaves its key all the same."""

    def __init__(self, root: Path, *, takes: bool) -> None:
        """Take the folder of the runs."""
        self._root, self._takes, self._last = root, takes, threading.local()

    def begin(self) -> None:
        """Begin a step of this thread: what is told of the last one is forgotten."""
        self._last.__dict__.clear()

    @property
    def exit_code(self) -> int | None:
        """What the step of this thread ended with, None where it has not come so far."""
        return getattr(self._last, "exit_code", None)

    @property
    def was_taken(self) -> bool:
        """Whether the step of this thread was taken from an earlier run."""
        return bool(getattr(self._last, "taken", False))

    def run(self, command: Sequence[str], code: str, run: Callable[[], int]) -> int:
        """Return the exit code of a step, after running it or taking it from an earlier run."""
        key = step_keys.key_of(command, code)
        found = self._find(key) if key and self._takes and _is_pure(command, key) else None
        self._last.taken = found is not None
        if key is None:
            self._last.exit_code = exit_code = run()
            return exit_code
        if found is not None:
            print(f"{key.step} is that of {found.folder.parent.name}: its key is the same.")
            _copy(found, key.folder)
        self._last.exit_code = exit_code = 0 if found is not None else run()
        if exit_code == 0:
            key.write()
        return exit_code

    def _find(self, key: StepKey) -> StepKey | None:
        for file in sorted(self._root.glob(f"*/{key.step}/{step_keys.FILE}"), reverse=True):
            other = step_keys.read(file.parent)
            if other is not None and key.same(other) and other.is_whole:
                return other
        return None


def _is_pure(command: Sequence[str], key: StepKey) -> bool:
    """Whether it is a component of ours, as it is now, that reads and writes nothing but what its key has."""
    if not _sources().intersection(command):
        return False
    return comes_along(str(key.parameters.get("trainer", ""))) and not key.parameters.get("checkpoint_dir")


@functools.cache
def _sources() -> frozenset[str]:
    package = Path(servegraph.__file__).parent
    found = set()
    for name in PURE:
        document = yaml.safe_load((package / name / "component.yaml").read_text(encoding="utf-8"))
        (executor,) = document["deploymentSpec"]["executors"].values()
        found.add(executor["container"]["command"][-1])
    return frozenset(found)


def _copy(source: StepKey, target: Path) -> None:
    """Make the folder of a step from that of another: links to its files, and its own record with paths of its own."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source.folder, target, copy_function=_link, ignore=shutil.ignore_patterns(step_keys.FILE))
    record = target / "executor_output.json"
    text = record.read_text(encoding="utf-8").replace(json.dumps(source.place)[1:-1], json.dumps(str(target))[1:-1])
    record.unlink()
    record.write_text(text, encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
