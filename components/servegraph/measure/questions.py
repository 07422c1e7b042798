"""Sample requests for a measurement, as columns of JSON values: given ones, those stored with the model, or made up.

Reading a model's inputs takes TensorFlow where they are text, so this runs as a child:
`python -m servegraph.measure.questions MODEL [SAMPLES]` prints one JSON object: the questions, or the error.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servegraph import own_module
from servegraph.errors import ModelError, Refusal, ServegraphError, as_told
from servegraph.patience import waiting_for
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servegraph.answers.samples import InputSpec, Request

MOST_ROWS = 64
NOTHING_TO_ASK = "NOTHING_TO_ASK"


@dataclass(frozen=True)
class Questions:
    """Rows to ask with, as columns by input; `is_batched` is whether any number of them goes into one request."""

    signature_name: str
    columns: dict[str, list[Any]]
    rows: int
    is_batched: bool
    source: str  # "samples", "golden requests" or "made up"

    def body(self, rows: int, start: int = 0) -> bytes:
        """Return a request of `rows` rows from the one at `start`, beginning again where they run out."""
        columns: dict[str, Any] = self.columns
        if self.is_batched:
            picked = [(start + index) % self.rows for index in range(rows)]
            columns = {name: [values[index] for index in picked] for name, values in self.columns.items()}
        return json.dumps({"signature_name": self.signature_name, "inputs": columns}).encode()


def ask_for(model: Path, samples: str | None) -> Questions:
    """Return the questions for the model.

    Raises:
        ServegraphError: the model cannot be read, or the samples or the stored requests cannot be used.
        Refusal: none can be made for it (code `NOTHING_TO_ASK`).
    """
    command = own_module.command("servegraph.measure.questions", str(model), *([samples] if samples else []))
    with waiting_for(f"requests that {str(model)!r} answers"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    error = as_told(**found["error"]) if "error" in found else None
    if error is not None and error.code != NOTHING_TO_ASK:
        raise error
    if done.returncode or error:
        last = error.message if error else _how_it_ended(done)
        raise Refusal(
            f"No request can be made for {str(model)!r}: {last}",
            code=NOTHING_TO_ASK,
            fix="Give requests with --samples FILE.jsonl.",
        )
    return Questions(**found)


def _how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the process in which TensorFlow held it was ended by {signal.Signals(-done.returncode).name}"
    return (done.stderr.strip().splitlines() or ["no message"])[-1]


def collect(model: Path, samples: str | None) -> Questions:
    """Return the questions; see `ask_for`. Needs TensorFlow.

    Raises:
        ModelError: the model has no signature, or no request can be made up (code `NOTHING_TO_ASK`).
        DataError: the samples do not fit.
    """
    from servegraph.answers import sample_lines
    from servegraph.answers.json_values import to_json
    from servegraph.answers.samples import is_batched, specs_of
    from servegraph.serve.signatures import read_serving_graph
    from servegraph.serve.trial import stored_trials
    from servegraph.storage import open_dir

    signatures = read_serving_graph(open_dir(model)).signatures
    if not signatures:
        raise ModelError("The model has no signature.", code=NOTHING_TO_ASK, fix="Export the model with a signature.")
    name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else min(signatures)
    specs = specs_of(signatures[name])
    takes_batches = is_batched(specs)
    golden = [trial.inputs for trial in stored_trials(model, signatures) if trial.signature_name == name]
    if samples is not None:
        found, source = sample_lines.read(samples, specs, limit=MOST_ROWS, signature=name).inputs, "samples"
    elif golden:
        found, source = dict(max(golden, key=lambda inputs: _rows(inputs) if takes_batches else 1)), "golden requests"
    else:
        found, source = _made_up(model, name, specs), "made up"
    takes_batches = takes_batches and len({len(array) for array in found.values()}) == 1  # no parts of a ragged tensor
    columns = {key: to_json(array) for key, array in found.items()}
    return Questions(name, columns, _rows(found) if takes_batches else 1, takes_batches, source)


def _made_up(model: Path, signature: str, specs: Mapping[str, InputSpec]) -> Request:
    """Return made-up records that the model answers with something; of one that answers none the plainest."""
    from servegraph.answers.ask import LOADERS, Servable
    from servegraph.answers.encodings import encodings
    from servegraph.answers.generated import first_answered, tries
    from servegraph.answers.samples import Samples
    from servegraph.serve.model import meta_graph_of

    definition = meta_graph_of(model)
    known = {} if definition is None else encodings(definition, signature, model)
    plain = tries(specs, known)
    if not plain:
        raise ModelError(
            "No request can be made up for its inputs.",
            code=NOTHING_TO_ASK,
            fix="Give requests with --samples FILE.jsonl.",
        )
    for loader in LOADERS:
        with contextlib.suppress(ModelError), Servable(model, loader=loader) as servable:
            found = first_answered(specs, partial(servable, signature), known)
            if isinstance(found, Samples):
                return found.inputs
    return plain[0].inputs


def _rows(inputs: Any) -> int:
    return len(next(iter(inputs.values())))


def main(arguments: list[str]) -> int:
    """Print the questions, or the error, as JSON."""
    from servegraph.quiet_tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()
    try:
        found = collect(Path(arguments[0]), arguments[1] if len(arguments) > 1 else None)
    except ServegraphError as exc:
        print(json.dumps({"error": exc.parts()}))
        return 0
    print(json.dumps(vars(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
