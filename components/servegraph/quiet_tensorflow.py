"""TensorFlow without the notices it starts with."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

# Held while standard error is not the terminal: a child that was started then would have lost it for good.
terminal_is_away = threading.Lock()


def quiet_tracebacks() -> None:
    """Keep TensorFlow from printing a traceback where it goes on, as with a damaged fingerprint.pb."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its start-up notices on the terminal; a user's own log level wins.

    TensorFlow 2.21 writes the first of them before its logging is set up, where no setting reaches: what comes on
    stderr during the import is held back, and shown only if the import fails.

    Of the many objects that the import makes none becomes garbage. Without the collector it takes a sixth less time,
    and frozen they cost no later collection 0.2 s, nor a forked child copies of their pages.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    quiet_tracebacks()
    collects, is_here = gc.isenabled(), "tensorflow" in sys.modules
    gc.disable()
    try:
        # Without a standard error its number may be that of another file, even of a socket that is listened on.
        with contextlib.nullcontext() if is_here or sys.stderr is None else _held_back():
            import tensorflow
    finally:
        if collects:
            gc.enable()
    if not is_here:  # what somebody else has made since then may become garbage
        gc.freeze()
    tensorflow.get_logger().setLevel(logging.ERROR)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Keep what is written to standard error from the terminal, unless the block fails."""
    with terminal_is_away, tempfile.TemporaryFile() as held_back:
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
