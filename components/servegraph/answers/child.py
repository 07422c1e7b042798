"""Runs a function in a process of its own, in which TensorFlow is imported already.

A model is loaded there, asked, and gone with the process: the memory of the tool stays that of the graph, what one
load leaves in the allocator does not add to the next, and a model that crashes TensorFlow or exhausts the memory ends
its child alone. The processes are forks of one server (`fork_server`), which this process starts once and which ends
with it. `multiprocessing` has such a server too, but it runs the main module again in every child, and a script that
is not written for that breaks.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from servegraph import own_module
from servegraph.answers.fork_server import read_message, write_message
from servegraph.errors import ModelError

Result = TypeVar("Result")

_lock = threading.Lock()
_server: subprocess.Popen[bytes] | None = None
_given_up: set[threading.Thread] = set()


def warm_up() -> None:
    """Start importing TensorFlow for the children, beside whatever this process does next."""
    global _server
    if _server is None or _server.poll() is not None:
        _server = subprocess.Popen(
            own_module.command("servegraph.answers.fork_server"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server and its child
        )
        atexit.register(_stop, _server)


def in_child(function: Callable[..., Result], *arguments: Any) -> Result:
    """Return what `function(*arguments)` returns in a child process; function, arguments and result are pickled.

    Raises:
        ModelError: the child ended without an answer, as after running out of memory (code `CRASHED`).
        Exception: whatever `function` raises.
    """
    with _lock:
        if threading.current_thread() in _given_up:
            raise SystemExit
        warm_up()
        server = _server
        assert server is not None  # just started
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            write_message(server.stdin, pickle.dumps((function, arguments)))
            outcome, content = pickle.loads(read_message(server.stdout))  # noqa: S301 - of our own child
        except BaseException as exc:
            _stop(server)  # given up, or the server is gone: its child must not go on
            if isinstance(exc, (EOFError, BrokenPipeError)):
                raise _crashed(f"ended with exit code {server.returncode}") from None
            raise
    if outcome == "crashed":
        raise _crashed(content)
    if outcome == "raised":
        raise content
    result: Result = content
    return result


@contextlib.contextmanager
def beside(function: Callable[..., Result], *arguments: Any) -> Iterator[Future[Result]]:
    """Give the future result of `function(*arguments)`, which waits for children, while the block does other work.

    A block that ends with an error ends the child as well, and the function with it.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as exc:
            future.set_exception(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield future
    except BaseException:
        _given_up.add(thread)
        if _server is not None and not future.done():
            _stop(_server)
        raise
    finally:
        thread.join()
        _given_up.discard(thread)


def _crashed(how: str) -> ModelError:
    return ModelError(
        f"The process in which TensorFlow held the model {how}.",
        code="CRASHED",
        fix="If it was SIGKILL, the memory did not suffice; otherwise the model crashes TensorFlow.",
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    for stream in (server.stdin, server.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # what was not sent any more
                stream.close()
