"""The Python environment with TensorFlow 2.15: made on first use, cached, checked by hashes.

TensorFlow 2.16 dropped Estimators, and 2.15 has wheels up to Python 3.11. An image that has it installed names its
interpreter in `SERVEGRAPH_ESTIMATOR_PYTHON`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from servegraph.errors import InputError, StorageError
from servegraph.progress import Progress

LOCK_FILE = Path(__file__).with_name("requirements.txt")
PYTHONS = ("3.11", "3.10")  # which both servegraph and TensorFlow 2.15 run on
VARIABLE = "SERVEGRAPH_ESTIMATOR_PYTHON"
_READY = "ready"


def interpreter(environment: Mapping[str, str]) -> Path:
    """Return the Python that has TensorFlow 2.15, after making its environment if there is none yet.

    Raises:
        InputError: no Python that TensorFlow 2.15 runs on is here (code `NO_PYTHON`), or the named one is not there.
        StorageError: the environment cannot be made (code `CANNOT_INSTALL`).
    """
    if named := environment.get(VARIABLE):
        if not Path(named).is_file():
            raise InputError(
                f"{VARIABLE} names {named}, which does not exist.",
                code="NO_PYTHON",
                fix=f"Name the Python of an environment with TensorFlow 2.15, or unset {VARIABLE}: one is then made.",
            )
        return Path(named)
    place = _place(environment)
    python = place / "bin" / "python"
    if (place / _READY).is_file():
        return python
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place.with_suffix(".lock")):
            if not (place / _READY).is_file():
                _make(place, base_python(environment))
    except subprocess.CalledProcessError as exc:
        lines = [line for line in (exc.output or "").splitlines() if line.strip()]
        raise StorageError(
            f"The environment with TensorFlow 2.15 cannot be installed: {lines[-1] if lines else exc}",
            code="CANNOT_INSTALL",
            fix=f"See that pip reaches a package index, or name a Python that has TensorFlow 2.15 in {VARIABLE}.",
        ) from exc
    except OSError as exc:
        raise StorageError(
            f"The environment with TensorFlow 2.15 cannot be made at {place}: {exc}.",
            code="CANNOT_INSTALL",
            fix="Free space there, or set XDG_CACHE_HOME to a directory that can be written.",
        ) from exc
    return python


def is_ready(environment: Mapping[str, str]) -> bool:
    """Whether there is an environment, so that nothing needs to be installed."""
    return bool(environment.get(VARIABLE)) or (_place(environment) / _READY).is_file()


def base_python(environment: Mapping[str, str]) -> str:
    """Return a Python that TensorFlow 2.15 runs on: this one, or one on the PATH.

    Raises:
        InputError: there is none (code `NO_PYTHON`).
    """
    candidates = [sys.executable] + [f"python{version}" for version in PYTHONS]
    for candidate in candidates:
        found = shutil.which(candidate, path=environment.get("PATH"))
        if found and _version(found) in PYTHONS:
            return found
    raise InputError(
        f"Estimators need Python {' or '.join(PYTHONS)}, which TensorFlow 2.15 runs on, and none is on the PATH.",
        code="NO_PYTHON",
        fix=f"Install one, e.g. `uv python install 3.11`, or name one that has TensorFlow 2.15 in {VARIABLE}.",
    )


def _version(python: str) -> str:
    """Return the version of a Python that can make environments, empty of one that cannot."""
    code = "import ensurepip, venv, sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _place(environment: Mapping[str, str]) -> Path:
    """Return where the environment of this lock file is kept, in the user's cache."""
    home = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME") or Path.home()) / ".cache")
    return Path(home) / "servegraph" / f"estimator-{sha256(LOCK_FILE.read_bytes()).hexdigest()[:12]}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, so that two first uses at once make one environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(place: Path, python: str) -> None:
    """Make the environment; the file `ready` comes last, so that one that was cut short is made again."""
    shutil.rmtree(place, ignore_errors=True)
    packages = len(re.findall(r"^\S+==", LOCK_FILE.read_text(), re.MULTILINE))
    with Progress("TensorFlow 2.15 for Estimators, once", total=packages + 2) as progress:
        subprocess.run([python, "-m", "venv", str(place)], check=True, capture_output=True, text=True)
        progress.advance("environment made")
        pip = [str(place / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
        lines: list[str] = []
        with subprocess.Popen(
            [*pip, "--require-hashes", "-r", str(LOCK_FILE)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if match := re.match(r"Collecting (\S+?)(?:==|\s|$)", line):
                    progress.advance(match[1])
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, pip, "".join(lines[-20:]))
        (place / _READY).write_text("")
        progress.advance("installed")
