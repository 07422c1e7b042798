"""Which signatures an export has, and what their inputs and outputs are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from servegraph.errors import InputError
from servegraph.export_serving_graph.interface import WantedNames
from servegraph.rewriting import Precision
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE


@dataclass(frozen=True)
class Wanted:
    """What is asked of an export; what is left out is decided from the source.

    `signatures` maps the new name of each signature to that in the source (a method of a module, a signature of a
    SavedModel); empty takes all. `inputs` and `outputs` map names to tensors, for a graph that has no signature, and
    `constants` its placeholders that serving never feeds to their values in JSON. `tags` picks one of several
    MetaGraphs. `gpu_graph` is the precision of a second one, {serve, gpu}, that shares what is stored; None for none.
    `names` are those that clients see.
    """

    signatures: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    gpu_graph: Precision | None = None
    names: WantedNames = field(default_factory=WantedNames)


@dataclass(frozen=True)
class Requests:
    """How requests reach the features of a Keras model or an Estimator.

    `formats` names what `serving_inputs` makes of the schema: json, csv, example; the first is the default signature,
    the others are called as they are. An Estimator takes a `serving_input_fn` (`module:function`) instead; `trainer`
    names what makes it where no record of its training says so. `warmup` names sample records (JSON lines) that are
    stored as warmup requests of the default signature.
    """

    formats: tuple[str, ...] = ()
    serving_input_fn: str | None = None
    trainer: str | None = None
    warmup: str | None = None


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return {name: value} of `NAME=VALUE` texts; `NAME` alone stands for itself.

    Raises:
        InputError: an empty name or value, or a name twice (code `BAD_OPTION`).
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=") if "=" in text else (text, "", text)
        if not name or not value or name in found:
            raise InputError(
                f"{option} {text!r} is no NAME=VALUE, or names {name!r} again.",
                code="BAD_OPTION",
                fix="Write NAME=VALUE, and each NAME once.",
            )
        found[name] = value
    return found


def choose(available: Iterable[str], wanted: Mapping[str, str], source: str) -> dict[str, str]:
    """Return {new name: name in the source}: all that are available, or those that are wanted.

    Raises:
        InputError: a signature is wanted that the source does not have (code `NO_SUCH_SIGNATURE`).
    """
    names = list(available)
    if not wanted:
        return {name: name for name in names}
    missing = sorted(set(wanted.values()) - set(names))
    if missing:
        raise InputError(
            f"{source} has no {', '.join(missing)}; it has {', '.join(names) or 'nothing to call'}.",
            code="NO_SUCH_SIGNATURE",
            fix="Name one of those: --signature NEW_NAME=NAME.",
        )
    return dict(wanted)


def choose_functions(available: Iterable[str], wanted: Mapping[str, str], source: str) -> dict[str, str]:
    """Return {signature: function} for a source whose functions are no signatures yet; a single one is the default.

    Raises:
        InputError: there is none, or several and none was named (code `WHICH_SIGNATURE`); or `NO_SUCH_SIGNATURE`.
    """
    names = list(available)
    if wanted or not names:
        if names:
            return choose(names, wanted, source)
        raise InputError(
            f"{source} has no tf.function with an input signature.",
            code="WHICH_SIGNATURE",
            fix="Give the function that serves: @tf.function(input_signature=[tf.TensorSpec([None, …], …)]).",
        )
    if DEFAULT_SIGNATURE in names:
        return {DEFAULT_SIGNATURE: DEFAULT_SIGNATURE}
    if len(names) > 1:
        raise InputError(
            f"{source} has several functions that could serve: {', '.join(names)}.",
            code="WHICH_SIGNATURE",
            fix=f"Say which: --signature {DEFAULT_SIGNATURE}={names[0]}.",
        )
    return {DEFAULT_SIGNATURE: names[0]}


def precision(text: str) -> Precision | None:
    """Return the precision that `text` names, None where it is empty.

    Raises:
        InputError: there is no such precision (code `UNKNOWN_PRECISION`).
    """
    found: Precision | None = next((known for known in get_args(Precision) if known == text), None)
    if text and found is None:
        raise InputError(
            f"{text!r} is no precision of a graph for GPUs.",
            code="UNKNOWN_PRECISION",
            fix=f"Take one of {', '.join(get_args(Precision))}.",
        )
    return found
