"""Runs a function in a process of its own, in which TensorFlow is imported already.

A model is loaded there, asked, and gone with the process: the memory of the tool stays that of the graph, what one
load leaves in the allocator does not add to the next, and a model that crashes TensorFlow or exhausts the memory ends
its child alone. So does a graph that TensorFlow rewrites, which may be anybody's as well. The processes are forks of
one server (`fork_server`), which this process starts once and which ends with it. `multiprocessing` has such a server
too, but it runs the main module again in every child, and a script that is not written for that breaks.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import IO, Any, Literal, NamedTuple, TypeVar

from servegraph import own_module
from servegraph.answers.fork_server import read_message, write_message
from servegraph.errors import ModelError

Result = TypeVar("Result")
Lane = Literal["ask", "rewrite"]

_starting = threading.Lock()
_locks: dict[Lane, threading.Lock] = {"ask": threading.Lock(), "rewrite": threading.Lock()}
_server: _Server | None = None
_given_up: set[threading.Thread] = set()


class _Server(NamedTuple):
    """The process, and by lane where its calls go and its answers come from."""

    process: subprocess.Popen[bytes]
    streams: Mapping[Lane, tuple[IO[bytes], IO[bytes]]]


def warm_up() -> None:
    """Start importing TensorFlow for the children, beside whatever this process does next."""
    _running()


def _running() -> _Server:
    """Return the server, started anew where it has ended."""
    global _server
    with _starting:
        if _server is None or _server.process.poll() is not None:
            _server = _start()
            atexit.register(_stop, _server)
        return _server


def _start() -> _Server:
    read, calls = os.pipe()
    answers, write = os.pipe()
    try:
        process = subprocess.Popen(
            own_module.command("servegraph.answers.fork_server", str(read), str(write)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(read, write),
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server and its children
        )
    finally:
        os.close(read)
        os.close(write)
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    rewriting = (os.fdopen(calls, "wb"), os.fdopen(answers, "rb"))
    return _Server(process, {"ask": (process.stdin, process.stdout), "rewrite": rewriting})


def in_child(function: Callable[..., Result], *arguments: Any, lane: Lane = "ask") -> Result:
    """Return what `function(*arguments)` returns in a child process; function, arguments and result are pickled.

    Calls of one `lane` wait for each other, and not for those of the other one.

    Raises:
        ModelError: the child ended without an answer, as after running out of memory (code `CRASHED`).
        Exception: whatever `function` raises.
    """
    with _locks[lane]:
        if threading.current_thread() in _given_up:
            raise SystemExit
        server = _running()
        calls, answers = server.streams[lane]
        try:
            write_message(calls, pickle.dumps((function, arguments)))
            outcome, content = pickle.loads(read_message(answers))  # noqa: S301 - of our own child
        except BaseException as exc:
            _stop(server)  # given up, or the server is gone: its children must not go on
            if isinstance(exc, (EOFError, BrokenPipeError)):
                raise _crashed(f"ended with exit code {server.process.returncode}") from None
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


def _stop(server: _Server) -> None:
    if server.process.poll() is None:
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    for stream in (stream for streams in server.streams.values() for stream in streams):
        with contextlib.suppress(BrokenPipeError):  # what was not sent any more
            stream.close()
