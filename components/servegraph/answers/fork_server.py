"""The process that `child` starts: imports TensorFlow once, then forks for every call it reads from its standard input.

It runs nothing of TensorFlow itself: forking after TensorFlow's threads have started is not safe. Calls come in two
lanes, in each one at a time, as a length and a pickle, and are answered in the same way.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import IO, Any

from servegraph.quiet_tensorflow import import_tensorflow_quietly

_LENGTH_BYTES = 8


def read_message(stream: IO[bytes]) -> bytes:
    """Read one message. Raises EOFError where the stream ends."""
    head = stream.read(_LENGTH_BYTES)
    content = stream.read(int.from_bytes(head, "little")) if len(head) == _LENGTH_BYTES else b""
    if len(head) < _LENGTH_BYTES or len(content) < int.from_bytes(head, "little"):
        raise EOFError
    return content


def write_message(stream: IO[bytes], content: bytes) -> None:
    """Write one message."""
    stream.write(len(content).to_bytes(_LENGTH_BYTES, "little"))
    stream.write(content)
    stream.flush()


def main(read: int, write: int) -> None:
    """Serve two lanes of calls, each until its input ends: standard input, and the pipes with these numbers."""
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what TensorFlow prints must not get between the answers
    import_tensorflow_quietly()
    import servegraph.answers.gate  # noqa: F401 - what most calls need, so that not every child imports it

    others = os.fdopen(read, "rb"), os.fdopen(write, "wb")
    # Neither keeps the pipes of the other open: where one ends, whoever waits for its answer must see that.
    if os.fork() == 0:
        os.close(calls.fileno())
        answers.close()
        _serve(*others)
        os._exit(0)
    for stream in others:
        stream.close()
    _serve(calls, answers)


def _serve(calls: IO[bytes], answers: IO[bytes]) -> None:
    while True:
        try:
            call = read_message(calls)
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            _answer(call, answers)
        _, status = os.waitpid(child, 0)
        if code := os.waitstatus_to_exitcode(status):
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            write_message(answers, pickle.dumps(("crashed", how)))


def _answer(call: bytes, answers: IO[bytes]) -> None:
    """Answer in the child, which ends here: tearing down a large model in order takes time and nothing needs it."""
    code = 1
    try:
        function, arguments = pickle.loads(call)  # noqa: S301 - of our own parent
        message: tuple[str, Any]
        try:
            message = ("returned", function(*arguments))
        except Exception as exc:  # to be raised in the parent
            message = ("raised", exc)
        try:
            content = pickle.dumps(message)
        except Exception:  # TensorFlow's errors hold parts of its graph
            content = pickle.dumps(("raised", RuntimeError(f"{type(message[1]).__name__}: {message[1]}")))
        write_message(answers, content)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
