"""The process of a packaged routine: `python -m servegraph.serve.routine_child DESCRIPTOR MODEL_DIRECTORY SCRATCH`.

A process of its own, so that two versions may bring modules of the same name, what one of them loaded is gone with it,
and code that ends its process does not end the server. Requests and answers are messages on a socket that it
inherits: a body comes in; what goes out begins with a byte that says whether it is the answer or an error. The first
message out says that the routine has loaded. The scratch directory is removed by the server too, for a process that
ends without a word; by this one, for a server that does.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import sys
import traceback
import zipfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from servegraph.errors import ModelError, ServegraphError
from servegraph.routine.manifest import FOLDER, Routine, read_routine
from servegraph.serve.predictor import answer_of, find_predictor
from servegraph.storage import open_dir

ANSWER, ERROR = b"\0", b"\1"


def main(descriptor: int, directory: Path, scratch: Path) -> None:
    """Load the routine of the model in `directory` and answer what comes until the other end is closed.

    What it unpacks and writes is in `scratch`, a directory that is there, and is removed with it.
    """
    with Connection(descriptor) as connection, contextlib.ExitStack() as ending:
        ending.callback(shutil.rmtree, scratch, ignore_errors=True)
        # The SDK's download function copies the artifacts into the working directory.
        work = scratch / "work"
        work.mkdir()
        os.chdir(work)
        try:
            predictor = load(directory, scratch / "packages")
        except Exception as exc:  # whatever the routine raises
            if not isinstance(exc, ServegraphError):
                traceback.print_exc()
            connection.send_bytes(error_message(exc))
            return
        connection.send_bytes(ANSWER)
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                connection.send_bytes(_reply(predictor, connection.recv_bytes()))


def load(directory: Path, packages: Path) -> Any:
    """Return the loaded predictor of the model in `directory`; its packages are unpacked below `packages`.

    Raises:
        ModelError: there is no routine, or what it needs is not there (codes `BAD_ROUTINE`, `REQUIREMENT_MISSING`).
        InputError: its class cannot be imported (code `NO_PREDICTOR`).
    """
    routine = read_routine(open_dir(directory))
    if routine is None:
        raise ModelError(
            f"{str(directory)!r} has no routine.",
            code="BAD_ROUTINE",
            fix="Package the routine again with `servegraph package`.",
        )
    for name in (routine.wheel, *(f"wheels/{wheel}" for wheel in routine.wheels)):
        with zipfile.ZipFile(directory / FOLDER / name) as wheel:
            wheel.extractall(packages)
    sys.path.insert(0, str(packages))
    check_requirements(routine)
    predictor = find_predictor(routine.predictor)()
    predictor.load(str(directory))
    return predictor


def check_requirements(routine: Routine) -> None:
    """Check that every pinned package is there in that version, from the routine's wheels or from the server.

    Raises:
        ModelError: one is not (code `REQUIREMENT_MISSING`).
    """
    wrong = []
    for pin in routine.requirements:
        name, _, version = pin.partition("==")
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "nothing"
        if found != version:
            wrong.append(f"{pin} (there is {found})")
    if wrong:
        raise ModelError(
            f"The routine {routine.predictor} needs {', '.join(wrong)}.",
            code="REQUIREMENT_MISSING",
            fix="Pin what the server has, or leave it out; what it has not is fetched by `servegraph package`.",
        )


def error_message(error: Exception) -> bytes:
    """Return the message that tells of `error`, for `error_of` on the other side."""
    status = getattr(error, "status_code", None)  # of an HTTPException of the SDK's framework
    told = {
        "kind": type(error).__name__,
        "code": error.code if isinstance(error, ServegraphError) else "",
        "message": error.message if isinstance(error, ServegraphError) else str(getattr(error, "detail", error)),
        "fix": error.fix if isinstance(error, ServegraphError) else "",
        "status": status if isinstance(status, int) and 400 <= status < 600 else None,
    }
    return ERROR + json.dumps(told).encode()


def _reply(predictor: Any, body: bytes) -> bytes:
    outcome = answer_of(predictor, body)
    if isinstance(outcome, bytes):
        return ANSWER + outcome
    if not isinstance(outcome, ServegraphError) and not hasattr(outcome, "status_code"):
        traceback.print_exception(outcome)  # a defect of the routine: its author needs the line
    return error_message(outcome)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
