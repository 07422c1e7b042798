"""What is special to local directories: links, permissions, full disks, writes that fail half-way."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servegraph.errors import StorageError
from servegraph.storage import match, open_dir
from servegraph.storage.local import LocalDirectory, answering, require_files, write_file


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(StorageError) as caught:
        yield
    assert caught.value.code == code
    assert caught.value.fix


@contextmanager
def as_nobody(*folders: Path) -> Iterator[None]:
    """Run as an account that permissions hold for: root may read everything."""
    for folder in folders:
        folder.chmod(0o555)  # and for the owner, where the tests do not run as root
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A folder that every account may reach: pytest's own parents are closed to others."""
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_uid == os.geteuid() and "pytest" in parent.name:
            parent.chmod(0o755)
    return tmp_path


class TestLinks:
    def test_files_reports_where_links_lead_and_never_enters_them(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/secret").write_text("12345")
        model = tmp_path / "model"
        (model / "variables").mkdir(parents=True)
        (model / "variables/index").write_text("123")
        (model / "inside").symlink_to("variables/index")
        (model / "folder").symlink_to("variables")
        (model / "out").symlink_to("../outside/secret")
        (model / "out_folder").symlink_to(tmp_path / "outside")
        (model / "broken").symlink_to("nowhere")
        (model / "loop").symlink_to("loop")
        found = {info.path: (info.size_bytes, info.link_target) for info in LocalDirectory(model).files()}
        assert found == {
            "variables/index": (3, None),
            "inside": (3, "variables/index"),
            "folder": (0, "variables"),
            "out": (0, "../outside/secret"),
            "out_folder": (0, str(tmp_path / "outside")),
            "broken": (0, "nowhere"),
            "loop": (0, "loop"),
        }

    def test_a_file_outside_is_neither_read_nor_written(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("old")
        model = tmp_path / "model"
        model.mkdir()
        (model / "out").symlink_to("../secret")
        (model / "up").symlink_to("..")
        directory = LocalDirectory(model)
        for path in ("out", "up/secret"):
            for action in (directory.open, directory.stream, directory.read_bytes):
                with refused("LINK_OUTSIDE"):
                    action(path)
            with refused("LINK_OUTSIDE"):
                directory.write_bytes(path, b"new")
        assert (tmp_path / "secret").read_text() == "old"

    def test_a_link_inside_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text("content")
        (tmp_path / "link").symlink_to("real")
        assert LocalDirectory(tmp_path).read_bytes("link") == b"content"

    def test_the_directory_itself_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real/f").write_text("x")
        (tmp_path / "link").symlink_to("real")
        directory = LocalDirectory(tmp_path / "link")
        assert [info.path for info in directory.files()] == ["f"]
        assert directory.read_bytes("f") == b"x"

    def test_data_files_may_be_links(self, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store/abc").write_text("a,b\n")
        (tmp_path / "data").mkdir()
        (tmp_path / "data/t.csv").symlink_to("../store/abc")
        assert [ref.size_bytes for ref in match(tmp_path / "data")] == [4]


class TestWhatCannotBeRead:
    def test_a_file_is_not_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("x")
        with refused("NOT_A_DIRECTORY"):
            LocalDirectory(tmp_path / "f").files()
        with refused("NOT_A_DIRECTORY"):
            LocalDirectory(tmp_path).read_bytes("f/g")

    def test_a_directory_is_not_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        with refused("NOT_A_FILE"):
            LocalDirectory(tmp_path).open("d")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert LocalDirectory(tmp_path).files() == []
        with refused("NOT_A_FILE"):
            LocalDirectory(tmp_path).stream("pipe")
        with refused("NOT_A_FILE"), match(tmp_path / "pipe")[0].open():
            pass

    def test_no_permission(self, reachable: Path) -> None:
        (reachable / "model/closed").mkdir(parents=True)
        (reachable / "model/private").write_text("x")
        (reachable / "model/private").chmod(0)
        (reachable / "model/closed").chmod(0)
        directory = LocalDirectory(reachable / "model")
        with as_nobody(reachable / "model"):
            with refused("NO_ACCESS"):
                directory.files()
            with refused("NO_ACCESS"):
                directory.read_bytes("private")
            with refused("NO_ACCESS"):
                directory.write_bytes("new", b"x")
            with refused("NO_ACCESS"):
                match(reachable / "model")
        (reachable / "model").chmod(0o755)
        (reachable / "model/closed").chmod(0o755)

    def test_deeper_than_python_recurses(self, tmp_path: Path) -> None:
        here = os.open(tmp_path, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        try:
            assert LocalDirectory(tmp_path).files() == []
        finally:
            subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # shutil.rmtree recurses


class TestWriting:
    def test_permissions_follow_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            LocalDirectory(tmp_path).write_bytes("f", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640

    def test_a_write_that_fails_leaves_the_old_content_and_no_trace(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("old")
        # A limit on file sizes fails the write half-way, as a full disk does.
        script = (
            "import signal, sys\n"
            "from pathlib import Path\n"
            "from servegraph.errors import StorageError\n"
            "from servegraph.storage.local import LocalDirectory\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "try:\n"
            "    LocalDirectory(Path(sys.argv[1])).write_bytes('f', bytes(1 << 20))\n"
            "except StorageError as error:\n"
            "    print(error.code)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
        )
        assert done.stdout == "DISK_FULL\n", done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["f"]
        assert (tmp_path / "f").read_text() == "old"

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (errno.ENOSPC, "DISK_FULL"),
            (errno.EDQUOT, "DISK_FULL"),
            (errno.EROFS, "READ_ONLY"),
            (errno.EACCES, "NO_ACCESS"),
            (errno.EIO, "STORAGE"),
        ],
    )
    def test_what_the_system_says(self, number: int, code: str) -> None:
        with refused(code), answering("write", Path("/x")):
            raise OSError(number, os.strerror(number))

    def test_what_a_user_wants_written_is_written_whole_or_not_at_all(self, tmp_path: Path) -> None:
        out, link = tmp_path / "report.html", tmp_path / "link"
        out.write_text("of yesterday")
        link.symlink_to(out)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with refused("DISK_FULL"):
                write_file(out, b"x" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (out.read_text(), len(list(tmp_path.iterdir()))) == ("of yesterday", 2)
        write_file(link, b"of today")
        assert (out.read_text(), link.is_symlink()) == ("of today", True)
        reading, writing = os.pipe()
        write_file(Path(f"/dev/fd/{writing}"), b"for a program")
        assert os.read(reading, 100) == b"for a program"
        os.close(reading)
        os.close(writing)
        with refused("NOT_A_FILE"):
            write_file(tmp_path, b"x")

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("x")
        with pytest.raises(StorageError, match="Cannot write"):
            LocalDirectory(tmp_path).write_bytes("f/g", b"x")


class TestUris:
    def test_file_uris(self, tmp_path: Path) -> None:
        (tmp_path / "with space").mkdir()
        (tmp_path / "with space/f").write_text("x")
        quoted = str(tmp_path / "with space").replace(" ", "%20")
        for uri in (f"file://{quoted}", f"file://localhost{quoted}", str(tmp_path / "with space")):
            assert open_dir(uri).read_bytes("f") == b"x"

    @pytest.mark.parametrize("uri", ["s3://bucket/x", "http://host/x"])
    def test_unknown_schemes(self, uri: str) -> None:
        with refused("UNKNOWN_SCHEME"):
            open_dir(uri)
        with refused("UNKNOWN_SCHEME"):
            match(uri)

    @pytest.mark.parametrize("uri", ["gs:/bucket/x", "gs:bucket/x", "GS://bucket/x", "gcs://bucket/x"])
    def test_a_mistyped_address_is_told(self, uri: str) -> None:
        for look in (open_dir, match):
            with pytest.raises(StorageError, match="Write gs://bucket/x") as caught:
                look(uri)
            assert caught.value.code == "BAD_URI"

    def test_an_empty_text_is_not_the_current_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "data.csv").write_text("a,b\n1,2\n")
        monkeypatch.chdir(tmp_path)
        with refused("BAD_PATH"):
            match("")
        assert [ref.uri for ref in match(".")] == ["data.csv"]

    def test_no_bucket(self) -> None:
        with refused("BAD_URI"):
            open_dir("gs://")

    def test_a_file_whose_name_looks_like_a_pattern(self, tmp_path: Path) -> None:
        (tmp_path / "a[1].csv").write_text("x")
        (tmp_path / "a1.csv").write_text("x")
        assert [ref.uri for ref in match(tmp_path / "a[1].csv")] == [str(tmp_path / "a[1].csv")]


def test_what_tensorflow_would_read_for_ever_is_refused(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/words.txt").write_text("a")
    (tmp_path / "words.txt").symlink_to("assets/words.txt")
    (tmp_path / "lost.txt").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    require_files(tmp_path)
    (tmp_path / "assets/zero.txt").symlink_to("/dev/zero")
    with refused("NOT_A_FILE"):
        require_files(tmp_path)
    (tmp_path / "assets/zero.txt").unlink()
    os.mkfifo(tmp_path / "assets/pipe.txt")
    with refused("NOT_A_FILE"):
        require_files(tmp_path)
