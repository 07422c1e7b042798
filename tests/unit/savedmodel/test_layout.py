"""Roles of files, the digest, and what is said of a directory that is no SavedModel."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from servegraph.errors import ModelError, StorageError
from servegraph.savedmodel.layout import content_digest, require_saved_model, role_of
from servegraph.storage import open_dir

MODELS = Path(__file__).parents[2] / "real_models"


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("saved_model.pb", "graph"),
        ("saved_model.pbtxt", "graph"),
        ("variables/variables.index", "variables"),
        ("variables/variables.data-00002-of-00010", "variables"),
        ("assets/sub/vocabulary.txt", "asset"),
        ("assets.extra/tf_serving_warmup_requests", "asset_extra"),
        ("fingerprint.pb", "fingerprint"),
        ("keras_metadata.pb", "keras_metadata"),
        ("debug/saved_model_debug_info.pb", "debug_info"),
        ("explanation_metadata.json", "explanation_metadata"),
        ("checkpoint", "stray_checkpoint"),
        ("model.ckpt-1200.meta", "stray_checkpoint"),
        ("train/ckpt-3.data-00000-of-00001", "stray_checkpoint"),
        ("variables/variables_temp.index", "stray_checkpoint"),
        ("logs/events.out.tfevents.1700000000.host", "stray_summary"),
        (".DS_Store", "stray"),
        ("notes/saved_model.pb", "stray"),
    ],
)
def test_role(path: str, role: str) -> None:
    assert role_of(path) == role


def test_the_digest_is_of_sorted_paths_sizes_and_contents(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_bytes(b"xy")
    (tmp_path / "a").write_bytes(b"")
    assert content_digest(open_dir(tmp_path)) == "sha256:" + hashlib.sha256(b"a\x000\x00b/c\x002\x00xy").hexdigest()


def test_a_name_that_is_no_text_counts_as_its_bytes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff")).write_bytes(b"")
    assert content_digest(open_dir(tmp_path)) == "sha256:" + hashlib.sha256(b"a\xff\x000\x00").hexdigest()


def test_the_digest_sees_renames_and_moved_bytes(tmp_path: Path) -> None:
    digests = set()
    for number, files in enumerate([{"a": b"12", "b": b""}, {"a": b"1", "b": b"2"}, {"a": b"12", "c": b""}]):
        for name, content in files.items():
            (tmp_path / str(number)).mkdir(exist_ok=True)
            (tmp_path / str(number) / name).write_bytes(content)
        digests.add(content_digest(open_dir(tmp_path / str(number))))
    assert len(digests) == 3


def test_a_saved_model_is_one() -> None:
    assert any(info.path == "saved_model.pb" for info in require_saved_model(open_dir(MODELS / "module")))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "is empty"),
        (["model.keras"], "Keras file"),
        (["model.h5"], "Keras HDF5"),
        (["config.json", "metadata.json", "model.weights.h5"], "unpacked Keras"),
        (["checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001"], "checkpoint"),
        (["variables/variables.index", "fingerprint.pb"], "saved_model.pb is missing"),
        (["variables.index", "variables.data-00000-of-00001"], "Give the directory above"),
        (["frozen_inference_graph.pb"], "frozen TensorFlow 1 graph"),
        (["1/saved_model.pb", "2/saved_model.pb", "10/saved_model.pb"], "newest is 10"),
        (["export/saved_model.pb"], "Give that directory: export"),
        (["b/saved_model.pb", "a/saved_model.pb"], "e.g. a"),
        (["model.tar.gz"], "archive"),
        (["model.json", "group1-shard1of1.bin"], "TensorFlow.js"),
        (["readme.txt"], "no saved_model.pb"),
    ],
)
def test_what_else_it_is(files: list[str], says: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        require_saved_model(open_dir(tmp_path))
    assert caught.value.code == "NOT_A_SAVED_MODEL"
    assert says in str(caught.value)
    assert caught.value.fix


def test_a_directory_in_the_place_of_the_graph_is_said(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "module", tmp_path / "model")
    (tmp_path / "model/saved_model.pb").unlink()
    (tmp_path / "model/saved_model.pb").mkdir()
    with pytest.raises(ModelError, match="missing, or no file"):
        require_saved_model(open_dir(tmp_path / "model"))


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    shutil.copy(MODELS / "module/saved_model.pb", tmp_path)
    with pytest.raises(ModelError, match="Give the directory that it is in"):
        require_saved_model(open_dir(tmp_path / "saved_model.pb"))


def test_what_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        require_saved_model(open_dir(tmp_path / "nothing"))
    assert caught.value.code == "NOT_FOUND"
