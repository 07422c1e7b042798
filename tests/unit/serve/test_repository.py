"""Which versions are wanted, which are loaded, and what requests get meanwhile. Models are stand-ins here."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from servegraph.errors import InputError, RequestError, StorageError
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.repository import Repository
from servegraph.serve.state import (
    SPARE_FILE,
    STATE_FILE,
    ModelState,
    ServingConfig,
    VersionRecord,
    check_model_name,
    read_state,
    write_state,
)
from servegraph.serve.versions import check_root, model_names, version_directories, wanted_model


def put_version(root, name, number, content=b"graph"):
    directory = root / name / str(number)
    directory.mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(content)
    return directory


def record(digest="sha256:1", created="2026-11-23T00:00:00+00:00"):
    return VersionRecord(digest=digest, created=created, size_bytes=5)


def put_state(root, name, live, versions, labels=None):
    records = {number: record(digest=f"sha256:{number}") for number in versions}
    write_state(root / name, ModelState(records, {live: 100} if live else {}, labels=labels or {}, next_version=9))


class Loader:
    """Loads a directory as the text of its path; `broken` ones raise, a clear `gate` holds loads back."""

    def __init__(self):
        self.loads = []
        self.broken = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, directory):
        self.gate.wait(10)
        self.loads.append("/".join(directory.parts[-2:]))
        if self.loads[-1] in self.broken:
            raise RuntimeError(f"{self.loads[-1]} is broken")
        return self.loads[-1]


@pytest.fixture
def loader():
    return Loader()


# State file


def test_state_comes_back_as_it_was_written(tmp_path):
    info = TensorInfo(tensors=(), dtype="float32", shape=(None, 3), encoding="dense")
    unknown = TensorInfo(tensors=(), dtype="string", shape=None, encoding="dense")
    state = ModelState(
        versions={
            3: VersionRecord(
                "sha256:ab",
                "2026-11-23T00:00:00+00:00",
                7,
                ServingConfig("n1-standard-2", "NVIDIA_TESLA_V100", 1),
                {"serving_default": Signature("tensorflow/serving/predict", {"x": info}, {"y": unknown})},
            ),
            2: record(),
        },
        traffic={3: 90, 2: 10},
        previous=2,
        rolled_back_from=3,
        labels={"stable": 3},
        next_version=4,
        unfinished=(1,),
    )
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert {entry.name for entry in tmp_path.iterdir()} == {SPARE_FILE, STATE_FILE}
    assert state.live == 3


def test_no_state_is_none(tmp_path):
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "missing") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "versions": []}'])
def test_a_state_that_cannot_be_understood(tmp_path, text):
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(InputError) as caught:
        read_state(tmp_path)
    assert caught.value.code == "BAD_STATE"
    assert str(tmp_path / STATE_FILE) in caught.value.message


def test_traffic_to_an_unlisted_version_is_no_state(tmp_path):
    write_state(tmp_path, ModelState(traffic={7: 100}))
    with pytest.raises(InputError, match="traffic or labels for versions"):
        read_state(tmp_path)


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_state(tmp_path, ModelState(next_version=5))
    with pytest.raises(StorageError):
        write_state(tmp_path / "missing", ModelState())
    assert read_state(tmp_path) == ModelState(next_version=5)


@pytest.mark.parametrize("name", ["census", "a", "A1_b-c.d", "7", "x" * 128])
def test_names(name):
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "a/b", "a:b", "../a", "a b", "ä", "x" * 129, "a\n", "-a", "a%2F"]
)
def test_names_that_are_none(name):
    with pytest.raises(InputError) as caught:
        check_model_name(name)
    assert caught.value.code == "BAD_MODEL_NAME"


# What is wanted


def test_a_plain_layout_serves_the_newest_whole_version(tmp_path):
    put_version(tmp_path, "half", 2)
    put_version(tmp_path, "half", 10)
    (tmp_path / "half" / "11").mkdir()  # being copied
    put_version(tmp_path, "half", "0002")  # 2 again
    (tmp_path / "half" / "9223372036854775808").mkdir()  # above what TF Serving can count
    (tmp_path / "half" / "notes").mkdir()
    wanted = wanted_model(tmp_path / "half")
    assert list(wanted.versions) == [10]
    assert wanted.traffic == {10: 100}
    directories = version_directories(tmp_path / "half")
    assert {number: path.name for number, path in directories.items()} == {2: "2", 10: "10", 11: "11"}


def test_a_version_may_have_zeros_before_its_number(tmp_path, loader):
    put_version(tmp_path, "half", "00000123")
    repository = Repository(tmp_path, loader)
    repository.refresh()
    assert loader.loads == ["half/00000123"]
    assert repository.served("half").find(123) == "half/00000123"


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_what_cannot_be_looked_into_for_a_while_stays_loaded(tmp_path, loader, monkeypatch, code, has_state):
    put_version(tmp_path, "half", 1)
    if has_state:
        put_state(tmp_path, "half", 1, [1])
    repository = Repository(tmp_path, loader)
    repository.refresh()
    with monkeypatch.context() as patched:
        for owner, name in ((os, "stat"), (os, "scandir"), (os, "listdir"), (Path, "stat"), (Path, "iterdir")):
            patched.setattr(owner, name, failing_as(getattr(owner, name), code))
        patched.setattr(Path, "read_text", failing_as(Path.read_text, code))
        repository.refresh()
    assert repository.served("half").find(1) == "half/1"
    repository.refresh()
    assert loader.loads == ["half/1"]


def failing_as(function, code):
    """Return the function, which fails with what is of the model."""

    def failing(path, *arguments, **more):
        if "half" in Path(path).parts:
            raise OSError(code, os.strerror(code))
        return function(path, *arguments, **more)

    return failing


def test_with_a_state_only_the_versions_that_it_names(tmp_path):
    for number in (1, 2, 3):
        put_version(tmp_path, "half", number)
    put_state(tmp_path, "half", 1, [1, 2], {"canary": 2})
    wanted = wanted_model(tmp_path / "half")
    assert sorted(wanted.versions) == [1, 2]
    assert (wanted.traffic, wanted.labels) == ({1: 100}, {"canary": 2})


def test_models_of_a_root(tmp_path):
    put_version(tmp_path, "b", 1)
    put_version(tmp_path, "a", 1)
    put_version(tmp_path, ".staging-1", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert model_names(tmp_path) == ["a", "b"]


def test_roots_that_are_none(tmp_path):
    put_version(tmp_path, "half", 1)
    check_root(tmp_path)
    with pytest.raises(InputError, match=r"holds the versions of one model") as caught:
        check_root(tmp_path / "half")
    assert f"servegraph serve {tmp_path} --name half" in caught.value.fix
    with pytest.raises(InputError, match="is a SavedModel"):
        check_root(tmp_path / "half" / "1")
    with pytest.raises(StorageError):
        check_root(tmp_path / "missing")


# What is loaded


def test_all_deployed_versions_are_loaded_and_the_live_one_first(tmp_path, loader):
    for number in (1, 2, 3):
        put_version(tmp_path, "half", number)
    put_state(tmp_path, "half", 2, [1, 2, 3], {"canary": 3})
    repository = Repository(tmp_path, loader)
    repository.refresh()
    assert loader.loads == ["half/2", "half/3", "half/1"]
    served = repository.served("half")
    assert served.find() == "half/2"
    assert served.find(version=1) == "half/1"
    assert served.find(label="canary") == "half/3"


def test_a_switch_loads_what_is_new_and_drops_what_is_gone(tmp_path, loader, caplog):
    put_version(tmp_path, "half", 1)
    put_state(tmp_path, "half", 1, [1])
    repository = Repository(tmp_path, loader)
    repository.refresh()
    put_version(tmp_path, "half", 2)
    put_state(tmp_path, "half", 2, [2])
    repository.refresh()
    assert loader.loads == ["half/1", "half/2"]
    assert repository.served("half").find() == "half/2"
    assert list(repository.served("half").versions) == [2]
    repository.refresh()
    assert loader.loads == ["half/1", "half/2"]


def test_the_old_version_answers_while_the_new_one_loads(tmp_path, loader):
    put_version(tmp_path, "half", 1)
    repository = Repository(tmp_path, loader)
    repository.refresh()
    put_version(tmp_path, "half", 2)
    loader.gate.clear()
    loading = threading.Thread(target=repository.refresh)
    loading.start()
    while 2 not in repository.served("half").versions:
        pass
    served = repository.served("half")
    assert served.find() == "half/1"
    assert served.versions[2].state == "LOADING"
    with pytest.raises(RequestError) as caught:
        served.find(version=2)
    assert caught.value.code == "UNAVAILABLE"
    loader.gate.set()
    loading.join()
    assert repository.served("half").find() == "half/2"
    assert list(repository.served("half").versions) == [2]


def test_a_version_that_does_not_load_leaves_the_old_one_answering(tmp_path, loader):
    put_version(tmp_path, "half", 1)
    put_state(tmp_path, "half", 1, [1])
    repository = Repository(tmp_path, loader)
    repository.refresh()
    put_version(tmp_path, "half", 2)
    put_state(tmp_path, "half", 2, [2])
    loader.broken.add("half/2")
    for _ in range(3):
        repository.refresh()
    assert loader.loads == ["half/1", "half/2"]  # not tried again at once
    served = repository.served("half")
    assert served.find() == "half/1"
    assert served.versions[2].state == "END"
    with pytest.raises(RequestError, match="It could not be loaded: half/2 is broken") as caught:
        served.find(version=2)
    assert caught.value.code == "NOT_FOUND"


def test_the_first_version_broken_is_said_to_every_request(tmp_path, loader):
    put_version(tmp_path, "half", 1)
    loader.broken.add("half/1")
    repository = Repository(tmp_path, loader)
    repository.refresh()
    with pytest.raises(RequestError, match="half/1 is broken"):
        repository.served("half").find()


def test_a_version_replaced_in_place_is_loaded_again(tmp_path, loader):
    put_version(tmp_path, "half", 1)
    repository = Repository(tmp_path, loader)
    repository.refresh()
    shutil.rmtree(tmp_path / "half" / "1")
    put_version(tmp_path, "half", 1, b"another graph")
    repository.refresh()
    assert loader.loads == ["half/1", "half/1"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_version_replaced_while_it_loads_is_not_served_half_and_half(tmp_path, loader, caplog, is_first):
    directory = put_version(tmp_path, "half", 1)
    (directory / "variables").mkdir()
    variables = directory / "variables" / "variables.index"
    variables.write_bytes(b"old")
    is_copied = not is_first

    def load(directory):
        nonlocal is_copied
        if not is_copied:
            variables.write_bytes(b"new and longer")  # as `cp -r` does: after the graph
            is_copied = True
        return loader(directory)

    repository = Repository(tmp_path, load)
    if not is_first:
        repository.refresh()
        is_copied = False
        (directory / "saved_model.pb").write_bytes(b"new graph")
    repository.refresh()
    assert "replaced while it was loaded" in caplog.text
    served = repository.served("half")
    assert served.versions[1].state == ("LOADING" if is_first else "AVAILABLE")
    before = len(loader.loads)
    for _ in range(2):
        repository.refresh()
        assert repository.served("half").versions[1].state == "AVAILABLE"
    assert len(loader.loads) == before + 1


def test_a_bad_state_leaves_everything_as_it_was(tmp_path, loader, caplog):
    put_version(tmp_path, "half", 1)
    put_state(tmp_path, "half", 1, [1])
    repository = Repository(tmp_path, loader)
    repository.refresh()
    (tmp_path / "half" / STATE_FILE).write_text("{")
    repository.refresh()
    repository.refresh()
    assert repository.served("half").find() == "half/1"
    assert caplog.text.count("BAD_STATE") == 1


def test_models_come_and_go(tmp_path, loader):
    repository = Repository(tmp_path, loader)
    repository.refresh()
    assert repository.names() == []
    put_version(tmp_path, "half", 1)
    repository.refresh()
    assert repository.names() == ["half"]
    shutil.rmtree(tmp_path / "half")
    repository.refresh()
    with pytest.raises(RequestError, match=r"Latest\(half\).*Models here: none"):
        repository.served("half")


def test_undeployed_models_answer_no_more(tmp_path, loader):
    put_version(tmp_path, "half", 1)
    put_state(tmp_path, "half", 1, [1])
    repository = Repository(tmp_path, loader)
    repository.refresh()
    put_state(tmp_path, "half", None, [])
    repository.refresh()
    with pytest.raises(RequestError, match=r"Latest\(half\)") as caught:
        repository.served("half").find()
    assert caught.value.code == "NOT_FOUND"


def test_only_one_model(tmp_path, loader):
    put_version(tmp_path, "a", 1)
    put_version(tmp_path, "b", 1)
    repository = Repository(tmp_path, loader, only="b")
    repository.refresh()
    assert repository.names() == ["b"]


def test_traffic_is_drawn_by_its_shares(tmp_path, loader):
    for number in (1, 2, 3):
        put_version(tmp_path, "half", number)
    records = {number: record() for number in (1, 2, 3)}
    write_state(tmp_path / "half", ModelState(records, {1: 75, 2: 25, 3: 0}))
    repository = Repository(tmp_path, loader)
    repository.refresh()
    drawn = [repository.served("half").find() for _ in range(2000)]
    assert set(drawn) == {"half/1", "half/2"}
    assert 1300 < drawn.count("half/1") < 1700


def test_unknown_versions_and_labels(tmp_path, loader):
    put_version(tmp_path, "half", 1)
    repository = Repository(tmp_path, loader)
    repository.refresh()
    with pytest.raises(RequestError, match=r"Specific\(half, 7\).*Versions here: 1"):
        repository.served("half").find(version=7)
    with pytest.raises(RequestError, match=r"version label: stable.*Labels of half: none"):
        repository.served("half").find(label="stable")


def test_models_that_wait_for_others_to_load_are_announced(tmp_path, loader):
    put_version(tmp_path, "a", 1)
    put_version(tmp_path, "b", 1)
    loader.gate.clear()
    repository = Repository(tmp_path, loader)
    loading = threading.Thread(target=repository.refresh)
    loading.start()
    while "b" not in repository.names():
        pass
    with pytest.raises(RequestError, match="b version 1 is being loaded"):
        repository.served("b").find()
    loader.gate.set()
    loading.join()
    assert repository.served("b").find() == "b/1"


def test_a_model_may_be_called_like_a_version(tmp_path, loader):
    put_version(tmp_path, "7", 1)
    check_root(tmp_path)
    repository = Repository(tmp_path, loader)
    repository.refresh()
    assert repository.served("7").find() == "7/1"
