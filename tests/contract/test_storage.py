"""What every storage promises, asked of a local directory and of Cloud Storage over HTTP."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.emulators.gcs import FakeGcs

from servegraph.errors import StorageError
from servegraph.storage import Directory, FileRef, iter_chunks, match
from servegraph.storage.gcs import GcsDirectory
from servegraph.storage.local import LocalDirectory


@dataclass(frozen=True)
class Storage:
    """One implementation: an empty place, how to put a file there behind its back, how to open it."""

    uri: str
    put: Callable[[str, bytes], object]
    open: Callable[[str], Directory]
    match: Callable[[str], list[FileRef]]

    @property
    def directory(self) -> Directory:
        return self.open(self.uri)


@pytest.fixture(params=["local", "gcs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "local":

        def put(path: str, content: bytes) -> None:
            target = tmp_path / "root" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

        yield Storage(str(tmp_path / "root"), put, lambda uri: LocalDirectory(Path(uri)), match)
        return
    with FakeGcs() as fake:
        fake.make_bucket("bucket")
        client = fake.client()
        yield Storage(
            "gs://bucket/root",
            lambda path, content: fake.put("bucket", f"root/{path}", content),
            lambda uri: GcsDirectory(uri, client=client),
            lambda uri: match(uri, client=client),
        )
        client.close()


CONTENT = bytes(range(256)) * 40


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as caught:
        action()
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value.code


class TestDirectory:
    def test_files_are_sorted_by_path_with_their_sizes(self, storage: Storage) -> None:
        for path, content in {"b.txt": b"22", "a/z": b"", "a.b": b"1", "a/b/c": b"4444"}.items():
            storage.put(path, content)
        found = [(info.path, info.size_bytes, info.link_target) for info in storage.directory.files()]
        assert found == [("a.b", 1, None), ("a/b/c", 4, None), ("a/z", 0, None), ("b.txt", 2, None)]

    def test_a_neighbour_whose_name_starts_alike_is_not_inside(self, storage: Storage) -> None:
        storage.put("model/x", b"1")
        storage.put("model2/y", b"1")
        assert [info.path for info in storage.open(storage.uri + "/model").files()] == ["x"]

    def test_the_uri_has_no_trailing_slash(self, storage: Storage) -> None:
        storage.put("x", b"1")
        directory = storage.open(storage.uri + "/")
        assert directory.uri == storage.uri
        assert directory.read_bytes("x") == b"1"

    def test_what_is_not_there(self, storage: Storage) -> None:
        storage.put("x", b"1")
        missing = storage.open(storage.uri + "/missing")
        assert code_of(missing.files) == "NOT_FOUND"
        for read in (storage.directory.open, storage.directory.read_bytes, storage.directory.stream):
            assert code_of(lambda read=read: read("y")) == "NOT_FOUND"

    def test_pread(self, storage: Storage) -> None:
        storage.put("f", CONTENT)
        storage.directory.files()
        file = storage.directory.open("f")
        assert file.size_bytes == len(CONTENT)
        assert file.pread(0, 10) == CONTENT[:10]
        assert file.pread(300, 500) == CONTENT[300:800]
        assert file.pread(len(CONTENT) - 3, 100) == CONTENT[-3:]
        assert file.pread(len(CONTENT), 1) == b""
        assert file.pread(len(CONTENT) + 99, 1) == b""
        assert file.pread(5, 0) == b""
        file.close()

    def test_an_empty_file(self, storage: Storage) -> None:
        storage.put("f", b"")
        file = storage.directory.open("f")
        assert (file.size_bytes, file.pread(0, 10), list(iter_chunks(file))) == (0, b"", [])
        file.close()
        assert storage.directory.read_bytes("f") == b""
        with storage.directory.stream("f") as stream:
            assert stream.read() == b""

    def test_chunks_make_up_the_file(self, storage: Storage) -> None:
        storage.put("f", CONTENT)
        file = storage.directory.open("f")
        chunks = list(iter_chunks(file, 1000))
        file.close()
        assert b"".join(chunks) == CONTENT
        assert [len(chunk) for chunk in chunks] == [1000] * 10 + [240]

    def test_stream(self, storage: Storage) -> None:
        storage.put("f", CONTENT)
        with storage.directory.stream("f") as stream:
            assert stream.read(7) == CONTENT[:7]
            assert stream.read() == CONTENT[7:]
            assert stream.seek(100) == 100
            assert stream.read(5) == CONTENT[100:105]

    def test_write_and_read_back(self, storage: Storage) -> None:
        directory = storage.directory
        directory.write_bytes("new/deep/file", b"one")
        assert directory.read_bytes("new/deep/file") == b"one"
        directory.write_bytes("new/deep/file", CONTENT)
        assert directory.read_bytes("new/deep/file") == CONTENT
        assert [info.path for info in directory.files()] == ["new/deep/file"]  # and no temporary file
        file = directory.open("new/deep/file")
        assert file.size_bytes == len(CONTENT)
        file.close()

    @pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", "a\0b"])
    def test_paths_stay_inside(self, storage: Storage, path: str) -> None:
        storage.put("x", b"1")
        directory = storage.directory
        for action in (directory.open, directory.read_bytes, directory.stream):
            assert code_of(lambda action=action: action(path)) == "BAD_PATH"
        assert code_of(lambda: directory.write_bytes(path, b"")) == "BAD_PATH"

    def test_names_of_all_kinds(self, storage: Storage) -> None:
        names = ["with space", "percent%2Fslash", "ünï", "a#b?c&d=e", "variables.data-00000-of-00001"]
        for name in names:
            storage.put(name, name.encode())
        assert [info.path for info in storage.directory.files()] == sorted(names)
        for name in names:
            assert storage.directory.read_bytes(name) == name.encode()
            file = storage.directory.open(name)
            assert file.pread(0, 100) == name.encode()
            file.close()


class TestMatch:
    def paths(self, storage: Storage, pattern: str) -> list[str]:
        found = storage.match(f"{storage.uri}/{pattern}")
        return [ref.uri.removeprefix(storage.uri + "/") for ref in found]

    @pytest.fixture(autouse=True)
    def files(self, storage: Storage) -> None:
        for path in [
            "d/b.csv",
            "d/a.csv",
            "d/_SUCCESS",
            "d/.part.crc",
            "d/_temporary/0",
            "d/deep/c.csv",
            "one.csv",
        ]:
            storage.put(path, path.encode())

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("one.csv", ["one.csv"]),
            ("d/_SUCCESS", ["d/_SUCCESS"]),
            ("d", ["d/a.csv", "d/b.csv", "d/deep/c.csv"]),
            ("d/", ["d/a.csv", "d/b.csv", "d/deep/c.csv"]),
            ("d/*.csv", ["d/a.csv", "d/b.csv"]),
            ("d/[a].csv", ["d/a.csv"]),
            ("d/?.csv", ["d/a.csv", "d/b.csv"]),
            ("d/*", ["d/_SUCCESS", "d/a.csv", "d/b.csv"]),
            ("d/.*", ["d/.part.crc"]),
            ("**/*.csv", ["d/a.csv", "d/b.csv", "d/deep/c.csv", "one.csv"]),
        ],
    )
    def test_what_matches(self, storage: Storage, pattern: str, expected: list[str]) -> None:
        assert self.paths(storage, pattern) == expected

    @pytest.mark.parametrize("pattern", ["missing", "missing/", "d/*.parquet", "d/_temporary/1"])
    def test_nothing_matches(self, storage: Storage, pattern: str) -> None:
        assert code_of(lambda: self.paths(storage, pattern)) == "NOT_FOUND"

    def test_size_and_content(self, storage: Storage) -> None:
        (ref,) = storage.match(storage.uri + "/one.csv")
        assert ref.size_bytes == len(b"one.csv")
        with ref.open() as file:
            assert file.read() == b"one.csv"

    @pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
    def test_compressed(self, storage: Storage, suffix: str, compress: Callable[[bytes], bytes]) -> None:
        plain = b"a,b\r\n1,2\r\n" * 50_000
        storage.put("table.csv" + suffix, compress(plain))
        (ref,) = storage.match(f"{storage.uri}/table.csv{suffix}")
        with ref.open_binary() as file:
            assert file.read() == plain

    @pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:20] + b"\xff\xff" + b[22:], lambda b: b"plain"])
    def test_damaged(self, storage: Storage, damage: Callable[[bytes], bytes]) -> None:
        storage.put("t.gz", damage(gzip.compress(CONTENT)))
        (ref,) = storage.match(storage.uri + "/t.gz")
        with ref.open_binary() as file:
            assert code_of(file.read) == "DAMAGED"
