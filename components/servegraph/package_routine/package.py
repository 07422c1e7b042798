"""The verb: a model and the Python around it become a directory that every target can deploy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servegraph.errors import InputError, ModelError, Refusal, StorageError
from servegraph.extras import require
from servegraph.package_routine.build import build
from servegraph.package_routine.requirements import Pin, Platform, fetch_wheels, read_pins, to_fetch
from servegraph.routine.manifest import FOLDER, GOLDEN, MANIFEST, Routine, read_routine
from servegraph.savedmodel.layout import require_saved_model
from servegraph.serve.child import ServerProcess
from servegraph.serve.server import require_packages
from servegraph.storage import open_dir
from servegraph.storage.local_paths import require_loadable_path
from servegraph.storage.staging import work_directory, writing

NAME = "routine"  # of the model while it is tried
OnStep = Callable[[str], None]


@dataclass(frozen=True)
class PackageRequest:
    """What is packaged: the modules at `source`, of which `predictor` (module:Class) serves the model at `model`.

    `artifacts` is a directory of further files that `load` finds beside the model. `samples` are requests to try.
    """

    source: Path
    model: Path
    out: Path
    predictor: str
    requirements: Path | None = None
    artifacts: Path | None = None
    samples: Path | None = None
    version: str = "0.1.0"
    platform: Platform = field(default_factory=Platform)


@dataclass(frozen=True)
class Packaged:
    """What came of it. `answers` are the sample requests with what the routine answered."""

    out: Path
    routine: Routine
    size_bytes: int
    answers: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "out": str(self.out),
            "predictor": self.routine.predictor,
            "wheel": f"{FOLDER}/{self.routine.wheel}",
            "sdist": f"{FOLDER}/{self.routine.sdist}",
            "requirements": list(self.routine.requirements),
            "bundled": list(self.routine.wheels),
            "size_bytes": self.size_bytes,
            "samples": list(self.answers),
            "warnings": list(self.warnings),
        }


def package(request: PackageRequest, on_step: OnStep = lambda step: None) -> Packaged:
    """Build the routine, put it beside the model, try it through a server and write `request.out`, whole or not at all.

    Raises:
        InputError: something that was given cannot be used, or a package is not installed (code `PACKAGE_MISSING`).
        Refusal: the routine does not load, or a sample request fails (codes `ROUTINE_FAILED`, `SAMPLE_FAILED`, …).
    """
    if request.out.exists():
        raise InputError(
            f"{str(request.out)!r} is there already.", code="OUTPUT_EXISTS", fix="Give another OUT, or remove it."
        )
    require_loadable_path(request.out, "OUT")
    require(("hatchling", "packaging"), "Packaging")
    require_packages()  # a server tries it
    require_saved_model(open_dir(request.model))
    samples = [] if request.samples is None else read_samples(request.samples)
    pins = [] if request.requirements is None else read_pins(request.requirements)
    to_fetch(pins)  # what is missing for that is said before anything is made
    described = describe(request.source, request.predictor)
    with writing(request.out), work_directory(request.out) as work:
        staged = work / "root" / NAME / "1"
        on_step(f"copying {request.model}")
        copy_artifacts(request, staged)
        on_step(f"building {request.source}")
        put_routine(request, described, pins, staged, work)
        on_step("trying it through the server")
        answers, warnings = try_out(staged.parents[1], samples, on_step)
        recorded = [answer for answer in answers if answer.pop("is_stable")]
        if recorded:
            lines = "".join(json.dumps(answer, sort_keys=True) + "\n" for answer in recorded)
            (staged / GOLDEN).write_text(lines, encoding="utf-8")
        files = open_dir(staged).files()
        routine = read_routine(open_dir(staged))
        assert routine is not None
        staged.rename(request.out)
    size_bytes = sum(info.size_bytes for info in files)
    return Packaged(request.out, routine, size_bytes, tuple(answers), tuple(warnings))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Return the sample requests of a file, a JSON object a line.

    Raises:
        InputError: it is none (code `BAD_SAMPLES`).
    """
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as exc:
        raise InputError(
            f"{str(path)!r} cannot be read: {exc}.",
            code="BAD_SAMPLES",
            fix='Give UTF-8 text with one request a line, such as {"instances": […]}.',
        ) from exc
    if not all(isinstance(document, dict) for document in found):
        raise InputError(
            f"{str(path)!r} holds something else than requests.",
            code="BAD_SAMPLES",
            fix='Give the body of a request on each line, like {"instances": [...]}.',
        )
    return found


def copy_artifacts(request: PackageRequest, staged: Path) -> None:
    """Copy the model, without a routine that it has, and the further artifacts.

    Raises:
        InputError: an artifact has the name of a file of the model (code `ARTIFACT_TAKEN`).
        StorageError: something cannot be copied.
    """
    try:
        shutil.copytree(request.model, staged, ignore=shutil.ignore_patterns(Path(FOLDER).name))
        if request.artifacts is None:
            return
        for path in sorted(request.artifacts.rglob("*")):
            target = staged / path.relative_to(request.artifacts)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            elif target.exists():
                name = str(target.relative_to(staged))
                raise InputError(f"The model has a file {name} already.", code="ARTIFACT_TAKEN", fix="Rename it.")
            else:
                shutil.copy(path, target)
    except (OSError, shutil.Error) as exc:
        if isinstance(exc, InputError):
            raise
        raise StorageError(
            f"The model or its artifacts cannot be copied: {exc}.",
            fix="See that both may be read, and that the output's directory can be written and has space left.",
        ) from exc


def put_routine(
    request: PackageRequest, described: tuple[str, bool], pins: Sequence[Pin], staged: Path, work: Path
) -> None:
    """Put the built routine, the wheels that it needs and the manifest into the model's directory.

    `described` is what `describe` returned of it.
    """
    interface, needs_servegraph = described
    texts = [str(pin) for pin in pins]
    adapted = request.predictor if interface == "predictor" else None
    top = request.predictor.split(":")[0].split(".")[0]
    built = build(request.source, f"{top.strip('_')}-routine", request.version, texts, adapted, work)
    folder = staged / FOLDER
    folder.mkdir(parents=True)
    for path in built:
        shutil.copy(path, folder / path.name)
    wheels = fetch_wheels(to_fetch(pins), request.platform, folder / "wheels")
    routine = Routine(
        predictor=request.predictor,
        interface=interface,
        needs_servegraph=needs_servegraph,
        wheel=built.wheel.name,
        sdist=built.sdist.name,
        requirements=tuple(texts),
        wheels=tuple(wheels),
    )
    (staged / MANIFEST).write_text(routine.to_json(), encoding="utf-8")


def describe(source: Path, predictor: str) -> tuple[str, bool]:
    """Return the interface that a class has, and whether it derives from one of ours. Its module is imported, apart.

    Raises:
        InputError: there is no such class (code `NO_PREDICTOR`).
    """
    place = source if source.is_dir() else source.parent
    # Not `-m`: the working directory would come before the modules of the source.
    script = "import sys; from servegraph.package_routine.package import print_description as p; p(*sys.argv[1:])"
    command = [sys.executable, "-c", script, str(place.resolve()), predictor]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        told = json.loads(last)
    except ValueError as exc:
        said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise InputError(
            f"{predictor} cannot be imported: {said}",
            code="NO_PREDICTOR",
            fix="Mend the source, or install here what it imports, then package again.",
        ) from exc
    if "error" in told:
        fix = "Write it as module:Class; the module is at the top of the source."
        raise InputError(told["error"], code="NO_PREDICTOR", fix=fix)
    return told["interface"], told["needs_servegraph"]


def print_description(place: str, predictor: str) -> None:
    """Print what `describe` returns, as JSON: what runs in the other process."""
    from servegraph.routine.interfaces import Predictor
    from servegraph.serve.predictor import find_predictor

    sys.path.insert(0, place)
    try:
        found = find_predictor(predictor)
    except InputError as exc:
        print(json.dumps({"error": exc.message}))
        return
    ours = [base for base in found.__mro__ if base.__module__.startswith("servegraph.") and base is not Predictor]
    is_from_path = any("from_path_as_predictor" in base.__qualname__ for base in ours)
    interface = "from_path" if is_from_path else "predictor"
    print(json.dumps({"interface": interface, "needs_servegraph": bool(ours) and not is_from_path}))


def try_out(root: Path, samples: Sequence[dict[str, Any]], on_step: OnStep) -> tuple[list[dict[str, Any]], list[str]]:
    """Load the only model below `root` in a server and ask each sample twice; `on_step` gets its log if that fails.

    Returns:
        The requests with their answers, with whether the second was the same; and warnings.

    Raises:
        Refusal: it does not load, or a request fails (code `SAMPLE_FAILED`).
    """
    answers, warnings = [], []
    with ServerProcess(root, options=("--trust-code",)) as server:
        try:
            server.wait_until_available(NAME)
        except Refusal as exc:
            on_step(f"the server's last lines:\n{server.last_lines(30)}")
            fix = "Mend the routine; what it wrote is above."
            raise ModelError(f"The routine does not load: {exc.message}", code="ROUTINE_FAILED", fix=fix) from exc
        for number, sample in enumerate(samples, start=1):
            first, second = (server.post(f"/v1/models/{NAME}:predict", sample) for _ in range(2))
            if first.status != 200:
                on_step(f"the server's last lines:\n{server.last_lines(20)}")
                said = str(first.document.get("error")).rstrip(".")
                raise Refusal(
                    f"Sample {number} is answered with HTTP {first.status}: {said}.",
                    code="SAMPLE_FAILED",
                    fix="Mend the routine or the sample; what the server wrote is above.",
                )
            is_stable = first == second
            if not is_stable:
                warnings.append(f"NOT_RECORDED: sample {number} is answered differently each time.")
            answers.append({"request": sample, "response": first.document, "is_stable": is_stable})
    if not samples:
        warnings.append("NO_SAMPLES: it was loaded but not asked, and a deploy cannot check its answers either.")
    return answers, warnings
