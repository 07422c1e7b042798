"""What is put beside a model: built the same each time, pins read, wheels fetched without a network."""

import ast
import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from servegraph.errors import InputError, Refusal
from servegraph.package_routine.build import build, modules_of
from servegraph.package_routine.package import PackageRequest, describe, package, put_routine, read_samples
from servegraph.package_routine.requirements import Platform, fetch_wheels, of_the_server, read_pins
from servegraph.routine.manifest import FOLDER, read_routine
from servegraph.storage import open_dir

MODEL = Path(__file__).parents[2] / "real_models/keras_dense"
MODERN = """
from google.cloud.aiplatform.prediction.predictor import Predictor
import helper

class Modern(Predictor):
    def __init__(self):
        return

    def load(self, artifacts_uri):
        self.uri = artifacts_uri

    def predict(self, instances):
        return {"predictions": [helper.twice(x) + instances.get("parameters", 0) for x in instances["instances"]]}
"""
LEGACY = """
class Legacy(object):
    def __init__(self, model_dir):
        self.model_dir = model_dir

    def predict(self, instances, **kwargs):
        return [x + kwargs.get("plus", 0) for x in instances]

    @classmethod
    def from_path(cls, model_dir):
        return cls(model_dir)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "parts" / "__pycache__").mkdir(parents=True)
    (directory / "modern.py").write_text(MODERN)
    (directory / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    (directory / "legacy.py").write_text(LEGACY)
    (directory / "ours.py").write_text(
        "from servegraph.serve.saved_model_predictor import SavedModelPredictor\nclass Ours(SavedModelPredictor):\n    pass\n"
    )
    (directory / "setup.py").write_text("1 / 0\n")
    (directory / "notes.txt").write_text("not code")
    (directory / "parts" / "__init__.py").write_text("")
    (directory / "parts" / "words.txt").write_text("a b c")
    (directory / "parts" / "__pycache__" / "x.pyc").write_text("")
    return directory


def contents(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        return sorted(name.split("/", 1)[1] for name in archive.getnames() if "/" in name)


def test_the_same_modules_give_the_same_bytes_and_nothing_else_goes_in(source, tmp_path, monkeypatch):
    digests = []
    for name, epoch in (("one", "0"), ("two", "1700000000")):
        copied = tmp_path / name
        shutil.copytree(source, copied / "source")  # other times, another path
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        built = build(copied / "source", "modern-routine", "1.0", ["six==1.17.0"], "modern:Modern", copied)
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in built])
    assert digests[0] == digests[1]
    names = ["helper.py", "legacy.py", "modern.py", "ours.py", "parts/__init__.py", "parts/words.txt"]
    assert contents(built.sdist) == sorted([*names, "servegraph_routine.py", "pyproject.toml", "PKG-INFO"])


def test_ai_platform_finds_its_interface_in_the_source_distribution(source, tmp_path):
    built = build(source, "modern-routine", "1.0", [], "modern:Modern", tmp_path)
    place = tmp_path / "there"
    (place / "parts").mkdir(parents=True)
    with tarfile.open(built.sdist) as archive:
        for member in archive:
            (place / member.name.split("/", 1)[1]).write_bytes(archive.extractfile(member).read())
    ast.parse((place / "servegraph_routine.py").read_text(), feature_version=(3, 7))
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from servegraph_routine import Routine\n"
        "print(json.dumps(Routine.from_path('/model').predict([1, 2], parameters=5)))\n"
        "assert not any(name.startswith('servegraph.') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script, str(place)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[7, 9]\n"), done.stderr


def test_what_a_class_is_is_found_out(source):
    assert describe(source, "modern:Modern") == ("predictor", False)
    assert describe(source, "legacy:Legacy") == ("from_path", False)
    assert describe(source, "ours:Ours") == ("predictor", True)
    for name in ("modern:Nothing", "nothing:X", "helper:twice"):
        with pytest.raises(InputError) as refused:
            describe(source, name)
        assert refused.value.code == "NO_PREDICTOR"


def test_a_source_without_modules(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for source in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError) as refused:
            modules_of(source)
        assert refused.value.code == "NO_MODULES"


def test_pins_are_read_with_their_hashes(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# of pip-compile\nSix==1.17.0 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n"
        "tomli==2 ; python_version < '3'\n\nzope.event[x]==5.0  # why\n"
    )
    pins = read_pins(path)
    assert [str(pin) for pin in pins] == ["six==1.17.0", "zope-event==5.0"]
    assert pins[0].line.split() == ["six==1.17.0", "--hash=sha256:ab", "--hash=sha256:cd"]


@pytest.mark.parametrize(
    "line", ["six", "six>=1", "six==1.*", "six==1,<2", "-r more.txt", "six @ https://example.com/six.whl", "./local"]
)
def test_what_is_no_pin_is_refused(tmp_path, line):
    path = tmp_path / "requirements.txt"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"requirements\.txt: ") as refused:
        read_pins(path)
    assert refused.value.code == "BAD_REQUIREMENTS"


def test_what_the_server_has_is_not_fetched_and_the_rest_lies_beside_the_model(source, tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/answer_lib.py").write_text("ANSWER = 42\n")
    (tmp_path / "work").mkdir()
    shutil.copy(build(tmp_path / "other", "answer-lib", "4.2", [], None, tmp_path / "work").wheel, index)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    assert {"servegraph", "numpy", "orjson"} <= of_the_server()
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("answer_lib==4.2\nnumpy==1.0\n")
    request = PackageRequest(source, tmp_path, tmp_path / "out", "modern:Modern", wanted)
    (tmp_path / "build").mkdir()
    described = describe(source, request.predictor)
    put_routine(request, described, read_pins(wanted), tmp_path / "model", tmp_path / "build")
    routine = read_routine(open_dir(tmp_path / "model"))
    assert routine.requirements == ("answer-lib==4.2", "numpy==1.0")
    assert [name.split("-")[:2] for name in routine.wheels] == [["answer_lib", "4.2"]]
    assert (tmp_path / "model" / FOLDER / "wheels" / routine.wheels[0]).is_file()
    wanted.write_text("no-such-thing==1\n")
    with pytest.raises(Refusal, match="no-such-thing") as refused:
        fetch_wheels(read_pins(wanted), Platform(), tmp_path / "wheels")
    assert refused.value.code == "CANNOT_FETCH"


def test_bad_samples_and_an_output_that_is_there(source, tmp_path):
    path = tmp_path / "samples.jsonl"
    for text in ("[1]\n", "{\n"):
        path.write_text(text)
        with pytest.raises(InputError) as refused:
            read_samples(path)
        assert refused.value.code == "BAD_SAMPLES"
    with pytest.raises(InputError) as refused:
        package(PackageRequest(source, tmp_path, tmp_path, "modern:Modern"))
    assert refused.value.code == "OUTPUT_EXISTS"


@pytest.mark.parametrize("predictor", ["modern", "modern:Other", "nowhere:Modern", ":Modern"])
def test_a_class_that_is_not_there_is_said_before_anything_is_copied(
    source: Path, tmp_path: Path, predictor: str
) -> None:
    steps: list[str] = []
    request = PackageRequest(source, MODEL, tmp_path / "new/out", predictor)
    with pytest.raises(InputError) as caught:
        package(request, steps.append)
    assert caught.value.code == "NO_PREDICTOR"
    assert steps == []
    assert not (tmp_path / "new").exists()
