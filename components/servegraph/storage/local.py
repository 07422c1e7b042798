"""A directory on this machine's file system."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from servegraph.errors import StorageError
from servegraph.storage.directory import FileInfo, checked_path

# One row per errno that has a better answer than the system's own words: code, what to do.
_ANSWERS = {
    errno.ENOENT: ("NOT_FOUND", "Check the path."),
    errno.ENOTDIR: ("NOT_A_DIRECTORY", "Give the path of a directory."),
    errno.EISDIR: ("NOT_A_FILE", "Give the path of a file."),
    errno.EACCES: ("NO_ACCESS", "Check the permissions of the path and of the directories above it."),
    errno.EPERM: ("NO_ACCESS", "Check the permissions of the path and of the directories above it."),
    errno.EROFS: ("READ_ONLY", "Write to another file system."),
    errno.ENOSPC: ("DISK_FULL", "Free space on the file system, or write to another one."),
    errno.EDQUOT: ("DISK_FULL", "Free space within the quota, or write to another file system."),
    errno.EFBIG: ("DISK_FULL", "Raise the limit on file sizes (ulimit -f), or write to another file system."),
    errno.ENAMETOOLONG: ("BAD_PATH", "Use a shorter name."),
    errno.ELOOP: ("BAD_PATH", "Remove the links that lead to each other."),
}


class LocalDirectory:
    """A directory of local files; no link is followed out of it. See `Directory` for the contract."""

    def __init__(self, path: Path) -> None:
        """Name the directory `path`; nothing is read or made."""
        self._path = path

    @property
    def uri(self) -> str:
        """The path as it was given."""
        return str(self._path)

    def files(self) -> list[FileInfo]:
        """All regular files and links below, sorted by path; directories behind links are not entered."""
        with answering("list", self._path):
            root = os.path.realpath(self._path)
            return sorted(_walk(self._path, root), key=lambda info: info.path)

    def open(self, path: str) -> LocalFile:
        """Open a file for reading at random."""
        return LocalFile(self._inside(path))

    def read_bytes(self, path: str) -> bytes:
        """Return a whole small file."""
        with self.stream(path) as file, answering("read", self._path / path):
            return file.read()

    def stream(self, path: str) -> BinaryIO:
        """Open a file for reading from its start."""
        return open_file(self._inside(path))

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a whole small file under a temporary name and rename it; parents are made."""
        target = self._inside(path)
        with answering("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)

    def _inside(self, path: str) -> Path:
        """The path of a file below; raises `LINK_OUTSIDE` where links lead out of the directory."""
        full = self._path / checked_path(path, self.uri)
        with answering("reach", full):
            real = os.path.realpath(full)
            if not _is_below(real, os.path.realpath(self._path)):
                raise StorageError(
                    f"{str(full)!r} leads by a link to {real!r}, outside of its directory.",
                    code="LINK_OUTSIDE",
                    fix="Copy the directory with `cp -RL`, which puts files in the place of links.",
                )
        return full


class LocalFile:
    """A local file read at random. See `RandomAccess` for the contract."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`. Raises `StorageError`."""
        self._path = path
        self._file = open_file(path)
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def pread(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end of the file."""
        with answering("read", self._path):
            pieces = []
            while length > 0 and (piece := os.pread(self._file.fileno(), length, offset)):
                pieces.append(piece)  # one piece, except above 2 GiB: Linux returns no more a call
                offset, length = offset + len(piece), length - len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_file(path: Path) -> BinaryIO:
    """Open a regular local file for reading from its start.

    Raises:
        StorageError: there is none, it is something else (code `NOT_A_FILE`), or it may not be read.
    """
    with answering("read", path):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its other end
            raise IsADirectoryError(errno.EISDIR, "it is not a regular file")
        return path.open("rb")


def write_file(path: Path, content: bytes) -> None:
    """Write what a user wants at `path`, whole or not at all; links are followed, and a pipe or device is written to.

    Raises:
        StorageError: it cannot be written; what was there before still is.
    """
    with answering("write", path):
        # Below /dev is what a shell has open: another file of the name would not be it.
        if path.exists() and (not path.is_file() or path.is_relative_to("/dev")):
            path.write_bytes(content)  # a directory is refused
            return
    write_whole(Path(os.path.realpath(path)), content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it. Raises `StorageError`; then it is as it was."""
    temporary = path.with_name(f".{path.name[:80]}.{os.urandom(4).hex()}.tmp")
    with answering("write", path):
        try:
            # "x" and not tempfile: the permissions are then the user's umask, as of any other file.
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # else a crash after the rename can leave an empty file
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def answering(verb: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says what was done to which path."""
    try:
        yield
    except StorageError:
        raise
    except OSError as exc:
        code, fix = _ANSWERS.get(exc.errno or 0, ("STORAGE", "Check the path and the file system."))
        reason = (exc.strerror or str(exc)).lower()
        raise StorageError(f"Cannot {verb} {str(path)!r}: {reason}.", code=code, fix=fix) from exc


def require_files(directory: Path) -> None:
    """Require that there are files and directories below, and nothing of which reading need not end, links followed.

    TensorFlow is given a directory and opens what a graph names: it would wait at a pipe for its other end, and take
    all memory for what a device such as /dev/zero holds.

    Raises:
        StorageError: there is something else (code `NOT_A_FILE`), or it cannot be listed.
    """
    with answering("list", directory):
        for folder, _, names in os.walk(directory):
            for path in (Path(folder, name) for name in names):
                mode = path.stat().st_mode if path.exists() else stat.S_IFREG  # a link to nothing: to be found missing
                if not stat.S_ISREG(mode):
                    raise StorageError(
                        f"{str(path)!r} is a pipe, a device or a socket, and no file.",
                        code="NOT_A_FILE",
                        fix="Put the file there, or copy the whole directory again.",
                    )


def _walk(directory: Path, root: str) -> Iterator[FileInfo]:
    pending = [""]  # a stack and not recursion: a hostile directory can be nested deeper than Python recurses
    while pending:
        prefix = pending.pop()
        with os.scandir(directory / prefix) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_symlink():
                    yield _link(entry, path, root)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(path + "/")
                elif entry.is_file(follow_symlinks=False):
                    yield FileInfo(path, entry.stat(follow_symlinks=False).st_size)


def _link(entry: os.DirEntry[str], path: str, root: str) -> FileInfo:
    target = os.readlink(entry.path)  # noqa: PTH115  a DirEntry is not a Path
    inside = _is_below(os.path.realpath(entry.path), root)
    size_bytes = entry.stat().st_size if inside and os.path.isfile(entry.path) else 0  # noqa: PTH113
    return FileInfo(path, size_bytes, link_target=target)


def _is_below(real: str, root: str) -> bool:
    return real == root or real.startswith(root.rstrip("/") + "/")
