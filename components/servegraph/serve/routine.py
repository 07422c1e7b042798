"""A packaged routine as the server has it: a process with the code, asked through a lane like any model."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import weakref
from multiprocessing.connection import Connection
from pathlib import Path

from servegraph import own_module
from servegraph.errors import ModelError, Refusal, RequestError
from servegraph.quiet_tensorflow import terminal_is_away
from servegraph.routine.manifest import Routine
from servegraph.serve.lane import LaneLimits, Outcome
from servegraph.serve.predictor import HostedPredictor
from servegraph.serve.routine_child import ANSWER

_STOP_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


class RoutineError(Exception):
    """What a routine raised, told by its process; `status_code` and `detail` as the server's edge reads them."""

    def __init__(self, detail: str, status_code: int) -> None:
        """Keep both."""
        super().__init__(detail)
        self.detail, self.status_code = detail, status_code


class _Process:
    """The process of a routine; started anew by the next request when it has ended by itself."""

    def __init__(self, directory: Path, predictor: str) -> None:
        self._directory, self._predictor = directory, predictor
        self._connection: Connection | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._scratch = ""
        self._ending = threading.Lock()

    def start(self) -> None:
        """Start it and wait until the routine has loaded. Raises `ModelError` where it does not."""
        self._scratch = tempfile.mkdtemp(prefix="servegraph-routine-")
        ours, its = socket.socketpair()
        self._connection = Connection(ours.detach())
        with its:
            arguments = [str(its.fileno()), str(self._directory), self._scratch]
            with terminal_is_away:
                self._child = subprocess.Popen(
                    own_module.command("servegraph.serve.routine_child", *arguments),
                    pass_fds=(its.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what the routine prints is log
                    start_new_session=True,  # Ctrl-C reaches the server only, which first answers what was begun
                    env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONUNBUFFERED": "1"},
                )
        try:
            message = self._connection.recv_bytes()
        except (EOFError, OSError) as exc:
            how = self._end()
            raise ModelError(
                f"The process of {self._predictor} ended {how} while it loaded.",
                code="ROUTINE_FAILED",
                fix="Look at what it wrote into the server's log.",
            ) from exc
        if message[:1] != ANSWER:
            self._end()
            raise _load_error(message, self._predictor)

    def answer(self, body: bytes) -> Outcome:
        """Return what the routine answers to `body`."""
        try:
            if self._connection is None:
                self.start()
            assert self._connection is not None
            self._connection.send_bytes(body)
            message = self._connection.recv_bytes()
        except (EOFError, OSError):
            how = self._end()
            _log.error("the process of %s ended %s; the next request starts it again", self._predictor, how)
            return Refusal(f"The process of {self._predictor} ended {how}.", code="UNAVAILABLE", fix="Try again.")
        except ModelError as exc:
            return exc
        return message[1:] if message[:1] == ANSWER else _error_of(message)

    def _end(self) -> str:
        """End the process, and return how it ended."""
        with self._ending:
            connection, child, scratch = self._connection, self._child, self._scratch
            self._connection = self._child = None
        if connection is not None:
            connection.close()
        how = "before" if child is None else _ended(child)
        shutil.rmtree(scratch, ignore_errors=True)  # the process removes it itself where it ends in order
        return how

    def close(self) -> None:
        """End the process without waiting for what it does."""
        with contextlib.suppress(OSError):
            self._end()


def _ended(child: subprocess.Popen[bytes]) -> str:
    """Wait for the end of a process whose socket is closed, and return how it ended."""
    try:
        code = child.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def host_routine(directory: Path, routine: Routine, limits: LaneLimits) -> HostedPredictor:
    """Return the routine of the model in `directory`, loaded in a process of its own.

    The process ends with the last request that holds what is returned, and with this one.

    Raises:
        ModelError: the routine cannot be loaded; the message is its own.
    """
    process = _Process(directory.resolve(), routine.predictor)
    process.start()
    hosted = HostedPredictor(process.answer, limits, routine.predictor)
    weakref.finalize(hosted.lane, process.close)  # which lives until the last request has its answer
    return hosted


def _load_error(message: bytes, predictor: str) -> ModelError:
    told = json.loads(message[1:])
    if told["code"]:
        return ModelError(told["message"], code=told["code"], fix=told["fix"])
    return ModelError(
        f"{predictor} could not be loaded: {told['kind']}: {told['message']}",
        code="ROUTINE_FAILED",
        fix="Look at its traceback in the server's log.",
    )


def _error_of(message: bytes) -> Exception:
    told = json.loads(message[1:])
    if told["status"] is not None:
        return RoutineError(told["message"], told["status"])
    if told["kind"] == "RequestError":
        return RequestError(told["message"], code=told["code"], fix=told["fix"])
    if told["code"]:
        return Refusal(told["message"], code=told["code"], fix=told["fix"])
    return RoutineError(f"{told['kind']}: {told['message']}", 500)
