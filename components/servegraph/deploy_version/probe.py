"""The probe: a real server loads the staged version and has to answer the golden requests as recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from servegraph.deploy_version.golden import difference
from servegraph.deploy_version.plan import Tolerance
from servegraph.errors import DeployRefused, Refusal
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.golden_file import GoldenRequest
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.serve.child import ServerProcess
from servegraph.serve.signatures import Signatures

NO_GOLDEN_WARNING = (
    f"The model has no golden requests ({GOLDEN_FILE}): it is only loaded before it takes traffic, its "
    "answers are not checked."
)


class Probe(Protocol):
    """What a deploy asks before a version takes traffic; `probe` below is the one."""

    def __call__(
        self,
        root: Path,
        name: str,
        signatures: Signatures,
        golden: tuple[GoldenRequest, ...],
        tolerance: Tolerance,
        routine: Routine | None,
    ) -> None:
        """Raise `DeployRefused` where the only version of `name` below `root` must not take traffic."""


def probe(
    root: Path,
    name: str,
    signatures: Signatures,
    golden: tuple[GoldenRequest, ...],
    tolerance: Tolerance,
    routine: Routine | None = None,
) -> None:
    """Load the only version of `name` below `root` in a server process and compare answers with the recorded.

    Its `routine` runs: that it may has been said by then.

    Raises:
        InputError: the server lacks packages (code `PACKAGE_MISSING`).
        DeployRefused: it does not load, does not answer, or answers differently (code `PROBE_FAILED`).
    """
    try:
        # The answers are compared below, more strictly.
        options = ("--no-probe",) if routine is None else ("--no-probe", "--trust-code")
        with ServerProcess(root, options=options) as server:
            server.wait_until_available(name)
            for request in golden:
                _ask(server, name, signatures, request, tolerance)
    except DeployRefused:
        raise
    except Refusal as exc:
        raise _failed(f"{name} cannot be served: {exc.message}") from exc


def _ask(
    server: ServerProcess, name: str, signatures: Signatures, request: GoldenRequest, tolerance: Tolerance
) -> None:
    by_column = {"signature_name": request.signature_name, "inputs": request.inputs}
    answer = server.post(f"/v1/models/{name}:predict", by_column if request.signature_name else dict(request.inputs))
    which = f"Golden request {request.line} ({request.asked}) of {name}"
    if answer.status != 200:
        raise _failed(f"{which} was answered with HTTP {answer.status}: {answer.document.get('error')}")
    outputs = answer.document if request.signature_name is None else answer.document["outputs"]
    names = list(signatures[request.signature_name].outputs) if request.signature_name else []
    if len(names) == 1:  # a lone output is answered without its name
        outputs = {names[0]: outputs}
    found = difference(request, outputs, tolerance)
    if found:
        raise _failed(f"{which}, {found} (tolerance abs {tolerance.abs:g}, rel {tolerance.rel:g}).")


def _failed(message: str) -> DeployRefused:
    return DeployRefused(
        message,
        code="PROBE_FAILED",
        fix="Nothing was published; the version that was live still is. Mend the model and deploy again.",
    )
