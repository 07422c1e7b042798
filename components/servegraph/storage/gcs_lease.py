"""One change at a time, across machines: a lease in a small object on Cloud Storage, taken by its generation.

The holder rewrites the object every few seconds. Who waits sees whether its generation still moves, by their own
clock: no clocks of different machines are compared. A holder that was killed is replaced once it has not moved for
`ttl_s`, or at once where it was a process of this machine that is gone.
Source: https://cloud.google.com/storage/docs/request-preconditions.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from servegraph.errors import DeployRefused, StorageError
from servegraph.storage.gcs import answering, default_client, split_gs_uri

TTL_S = 60.0


class Lease:
    """A lease that is held; `check` says whether it still is."""

    def __init__(self, blob: Any, generation: int, content: bytes, ttl_s: float, written_s: float) -> None:
        """Hold the object `blob` as long as its generation is the one that was written last.

        `written_s` is the time (`time.monotonic`) at which that was begun.
        """
        self._blob, self._generation, self._content = blob, generation, content
        self._ttl_s, self._written_s = ttl_s, written_s
        self._lost = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise `DeployRefused` (code `LOCK_LOST`) where another process took over, or may have."""
        if self._lost or time.monotonic() - self._written_s >= self._ttl_s:
            raise DeployRefused(
                "Another process took over the change, or may have, as this one did not renew its lock in time.",
                code="LOCK_LOST",
                fix="See what that one did, then run again.",
            )

    def renew(self) -> None:
        """Rewrite the object. A failure that is not a loss is left to the next time."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        begun_s = time.monotonic()
        with self._lock, contextlib.suppress(StorageError), answering("renew", self._blob.name):
            try:
                self._generation = _write(self._blob, self._content, self._generation)
                self._written_s = begun_s
            except (PreconditionFailed, NotFound):
                # Written after all, with the answer lost, or taken over: the content tells.
                ours = _generation_of(self._blob, self._content)
                self._lost = ours is None
                self._generation = ours or self._generation

    def release(self) -> None:
        """Remove the object if it is still ours. Failing that, it runs out."""
        with self._lock, contextlib.suppress(StorageError), answering("unlock", self._blob.name):
            self._blob.bucket.blob(self._blob.name).delete(if_generation_match=self._generation)


@contextlib.contextmanager
def leased(
    uri: str,
    client: Any = None,
    ttl_s: float = TTL_S,
    timeout_s: float = 300.0,
    on_wait: Callable[[str], None] = lambda holder: None,
) -> Iterator[Lease]:
    """Hold the lease at `uri` (gs://); wait for it up to `timeout_s`. `on_wait` is told once who has it.

    Raises:
        DeployRefused: another process holds it; the message says which (code `LOCKED`).
        StorageError: the bucket cannot be written.
    """
    bucket, name = split_gs_uri(uri)
    blob = (client or default_client(uri)).bucket(bucket).blob(name)
    with answering("lock", uri):
        lease = _acquire(blob, ttl_s, timeout_s, on_wait)
    stop = threading.Event()
    renewer = threading.Thread(target=_keep, args=(lease, ttl_s / 4, stop), daemon=True)
    renewer.start()
    try:
        yield lease
    finally:
        stop.set()
        renewer.join()
        lease.release()


def _acquire(blob: Any, ttl_s: float, timeout_s: float, on_wait: Callable[[str], None]) -> Lease:
    from google.api_core.exceptions import NotFound, PreconditionFailed

    content = _signature()
    deadline_s = time.monotonic() + timeout_s
    seen, since_s, written_s = -1, time.monotonic(), time.monotonic()
    while True:
        begun_s = time.monotonic()
        try:
            found = blob.bucket.blob(blob.name)
            holder = found.download_as_bytes()
            generation = int(found.generation)
        except NotFound:
            holder, generation = b"", 0
        if holder == content:  # the answer to our own write was lost
            return Lease(blob, generation, content, ttl_s, written_s)
        if generation != seen:
            seen, since_s = generation, time.monotonic()
            if generation:
                on_wait(_describe(holder))
        is_stale = time.monotonic() - since_s >= ttl_s or _is_dead(holder)
        if not generation or is_stale:
            written_s = begun_s
            with contextlib.suppress(PreconditionFailed):
                return Lease(blob, _write(blob, content, generation), content, ttl_s, written_s)
            continue
        if time.monotonic() >= deadline_s:
            raise DeployRefused(
                f"Another change is running ({_describe(holder)}) and did not end within {timeout_s:g} s.",
                code="LOCKED",
                fix=f"Wait for it, or end that process; its lock runs out {ttl_s:g} s later.",
            )
        time.sleep(min(1.0, ttl_s / 20))


def _keep(lease: Lease, every_s: float, stop: threading.Event) -> None:
    while not stop.wait(every_s):
        lease.renew()


def _write(blob: Any, content: bytes, generation: int) -> int:
    new = blob.bucket.blob(blob.name)
    new.upload_from_string(content, content_type="application/json", if_generation_match=generation)
    return int(new.generation)


def _generation_of(blob: Any, content: bytes) -> int | None:
    """The generation of the object where it holds `content`, else None."""
    from google.api_core.exceptions import NotFound

    found = blob.bucket.blob(blob.name)
    with contextlib.suppress(NotFound):
        if found.download_as_bytes() == content:
            return int(found.generation)
    return None


def _signature() -> bytes:
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "pids": _pids(), "since": since}
    return json.dumps(holder | {"nonce": os.urandom(8).hex()}).encode()


def _pids() -> str:
    """Among which processes a pid is one: containers may share their host's name and not its pids."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _holder(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        return found if isinstance(found, dict) else {}
    except ValueError:
        return {}


def _describe(content: bytes) -> str:
    found = _holder(content)
    return f"process {found.get('pid')} on {found.get('host')} since {found.get('since')}"


def _is_dead(content: bytes) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    found = _holder(content)
    pid = found.get("pid")
    is_here = (found.get("host"), found.get("pids")) == (socket.gethostname(), _pids())
    if not is_here or not isinstance(pid, int) or pid <= 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
