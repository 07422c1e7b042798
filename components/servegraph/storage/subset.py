"""A directory without some of its files, which are left where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from servegraph.errors import StorageError
from servegraph.storage.directory import Directory, FileInfo, RandomAccess


class Subset:
    """A `Directory` over another one, `directory`, with the files whose path `has` says yes to."""

    def __init__(self, directory: Directory, has: Callable[[str], bool]) -> None:
        """Nothing is read yet."""
        self.directory = directory
        self._has = has

    @property
    def uri(self) -> str:
        """That of the directory."""
        return self.directory.uri

    def files(self) -> list[FileInfo]:
        """Return the files that are in the subset. Raises `StorageError`."""
        return [info for info in self.directory.files() if self._has(info.path)]

    def open(self, path: str) -> RandomAccess:
        """Open a file for reading at random. Raises `StorageError`."""
        return self.directory.open(self._of_it(path))

    def read_bytes(self, path: str) -> bytes:
        """Return a whole small file. Raises `StorageError`."""
        return self.directory.read_bytes(self._of_it(path))

    def stream(self, path: str) -> BinaryIO:
        """Open a file for reading from its start. Raises `StorageError`."""
        return self.directory.stream(self._of_it(path))

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a whole small file. Raises `StorageError`."""
        self.directory.write_bytes(self._of_it(path), content)

    def _of_it(self, path: str) -> str:
        if not self._has(path):
            raise StorageError(
                f"{self.uri}/{path} is left out here.",
                code="NOT_FOUND",
                fix="Name a file of the part that is taken.",
            )
        return path
