"""What clients see of a signature: the names of inputs and outputs, and the method. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast, get_args

from servegraph.errors import ExportRefused, InputError
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.signatures import shape_text

Method = Literal["predict", "classify", "regress"]
METHOD_NAMES = "tensorflow/serving/"  # PREDICT_METHOD_NAME and its like in tf.saved_model
# The keys that TensorFlow Serving looks for; both methods take one tensor of serialized tf.Examples.
EXAMPLES, CLASSES, SCORES, VALUES = "inputs", "classes", "scores", "outputs"

Tensors = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class WantedNames:
    """What is asked of the names: {new name: name in the source} of inputs and outputs, {signature: method}, the
    path of a SavedModel, often an older version, whose names are kept, and the tags of the MetaGraph."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, Method] = field(default_factory=dict)
    like: str | None = None
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return bool(self.inputs or self.outputs or self.methods or self.like or self.tags)


class Interface(NamedTuple):
    """The names of one signature: {name for clients: name before}; outputs that are not there are left out."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    method_name: str


def parse_methods(given: Mapping[str, str]) -> dict[str, Method]:
    """Return {signature: method}.

    Raises:
        InputError: there is no such method (code `UNKNOWN_METHOD`).
    """
    for name, method in given.items():
        if method not in get_args(Method):
            raise InputError(
                f"The method {method!r} of {name} is not known.",
                code="UNKNOWN_METHOD",
                fix=f"Take one of {', '.join(get_args(Method))}.",
            )
    return cast("dict[str, Method]", dict(given))


def interfaces(
    signatures: Mapping[str, Signature], wanted: WantedNames, like: Mapping[str, Signature]
) -> dict[str, Interface]:
    """Return the interface of each signature; `like` are the signatures of the model that `wanted.like` names.

    Raises:
        InputError: a name is not there (codes `NO_SUCH_TENSOR`, `NO_SUCH_SIGNATURE`), or given twice (`NAME_TAKEN`);
            the names of the other model fit none, or several, of these (`NAMES_DO_NOT_FIT`).
        ExportRefused: a method cannot carry the inputs or outputs (code `METHOD_DOES_NOT_FIT`).
    """
    _require_known(signatures, wanted)
    shared = [name for name in signatures if name in like]
    if wanted.like and not shared:
        raise _do_not_fit(f"it has the signatures {', '.join(like)}, the export {', '.join(signatures)}")
    found = {}
    for name, signature in signatures.items():
        inputs = _renamed(signature.inputs, wanted.inputs, f"inputs of {name}")
        outputs = _renamed(signature.outputs, wanted.outputs, f"outputs of {name}")
        if name in shared:
            inputs, outputs = _like(name, signature, (inputs, outputs), like[name])
        method_name = signature.method_name
        if method := wanted.methods.get(name):
            inputs, outputs = _for_method(name, method, signature, (inputs, outputs))
            method_name = METHOD_NAMES + method
        found[name] = Interface(inputs, outputs, method_name)
    return found


def _require_known(signatures: Mapping[str, Signature], wanted: WantedNames) -> None:
    if missing := sorted(set(wanted.methods) - set(signatures)):
        raise InputError(
            f"There is no signature {', '.join(missing)}; there are {', '.join(signatures)}.",
            code="NO_SUCH_SIGNATURE",
            fix="Name one of those: --method SIGNATURE=METHOD.",
        )
    sides: tuple[tuple[str, Mapping[str, str], set[str]], ...] = (
        ("input", wanted.inputs, {name for s in signatures.values() for name in s.inputs}),
        ("output", wanted.outputs, {name for s in signatures.values() for name in s.outputs}),
    )
    for what, names, known in sides:
        if missing := sorted(set(names.values()) - known):
            raise InputError(
                f"No signature has the {what} {', '.join(missing)}; there are {', '.join(sorted(known))}.",
                code="NO_SUCH_TENSOR",
                fix=f"Name one of those: --rename-{what} NEW=OLD.",
            )


def _renamed(tensors: Tensors, wanted: Mapping[str, str], what: str) -> dict[str, str]:
    new = {old: name for name, old in wanted.items()}
    names = {new.get(old, old): old for old in tensors}
    if len(names) != len(tensors):
        raise InputError(
            f"Two {what} would be called alike.", code="NAME_TAKEN", fix="Rename the one that has the name as well."
        )
    return names


def _like(
    name: str, signature: Signature, now: tuple[dict[str, str], dict[str, str]], was: Signature
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names of the other model for what is alike; a lone output stays alone."""
    inputs, outputs = now
    found = []
    for what, names, tensors, old in (
        ("input", inputs, signature.inputs, was.inputs),
        ("output", outputs, signature.outputs, was.outputs),
    ):
        found.append(_matched(f"{what} of {name}", {new: tensors[before] for new, before in names.items()}, old))
    further = sorted(set(inputs) - set(found[0].values()))
    if further:
        raise _do_not_fit(f"the inputs {', '.join(further)} of {name} have none to match, and a request names all")
    kept = {new: outputs[current] for new, current in found[1].items()}
    if len(was.outputs) > 1:
        kept.update({new: before for new, before in outputs.items() if before not in kept.values()})
    return {new: inputs[current] for new, current in found[0].items()}, kept


def _matched(what: str, now: Tensors, was: Tensors) -> dict[str, str]:
    """Return {old name: name now}: the same name, else the only one of that dtype and rank that is left."""
    found = {name: name for name in was if name in now and _alike(now[name], was[name])}
    for name in was.keys() - found.keys():
        fitting = [other for other in now if other not in found and _alike(now[other], was[name])]
        rivals = [other for other in was.keys() - found.keys() if _alike(was[other], was[name])]
        if len(fitting) != 1 or len(rivals) != 1:
            have = ", ".join(f"{other} {info.dtype}{shape_text(info.shape)}" for other, info in now.items())
            raise _do_not_fit(
                f"for the {what} {name!r}, {was[name].dtype}{shape_text(was[name].shape)}, "
                f"{'several fit' if fitting else 'none fits'} of {have}"
            )
        found[name] = fitting[0]
    return {name: found[name] for name in was}


def _alike(one: TensorInfo, other: TensorInfo) -> bool:
    ranks = {len(info.shape) for info in (one, other) if info.shape is not None}
    return one.dtype == other.dtype and one.encoding == other.encoding and len(ranks) <= 1


def _do_not_fit(why: str) -> InputError:
    return InputError(
        f"The names of the other model cannot be kept: {why}.",
        code="NAMES_DO_NOT_FIT",
        fix="Say it one by one: --rename-input NEW=OLD, --rename-output NEW=OLD.",
    )


def _for_method(
    name: str, method: Method, signature: Signature, names: tuple[dict[str, str], dict[str, str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names that TensorFlow Serving looks for.

    Source: classifier.cc and regressor.cc of tensorflow/serving: one input of strings, serialized tf.Examples; classes
    (string) and scores (float) [batch, classes], or values (float) [batch] or [batch, 1].
    """
    inputs, outputs = names
    if method == "predict":
        return names
    if [(info.dtype, _rank(info)) for info in signature.inputs.values()] not in ([("string", 1)], [("string", None)]):
        raise _unfit(name, method, "its input is not one tensor of serialized tf.Examples", "Give --formats example.")
    (before,) = inputs.values()
    tensors = {new: signature.outputs[old] for new, old in outputs.items()}
    texts = [new for new, info in tensors.items() if info.dtype == "string"]
    numbers = [new for new, info in tensors.items() if info.dtype == "float32"]
    has = ", ".join(f"{name} {info.dtype}{shape_text(info.shape)}" for name, info in tensors.items())
    if method == "regress":
        values = [new for new in numbers if _rank(tensors[new]) in (1, None) or _is_column(tensors[new])]
        if len(values) != 1 or len(outputs) != 1:
            raise _unfit(name, method, f"it answers with one float [batch], and this with {has}")
        return {EXAMPLES: before}, {VALUES: outputs[values[0]]}
    fitting = [new for new in (*texts, *numbers) if _rank(tensors[new]) in (2, None)]
    if not fitting or len(texts) > 1 or len(numbers) > 1 or len(fitting) != len(outputs):
        raise _unfit(name, method, f"it answers with strings and floats [batch, classes], and this with {has}")
    both = {CLASSES: texts, SCORES: numbers}
    return {EXAMPLES: before}, {key: outputs[found[0]] for key, found in both.items() if found}


def _rank(info: TensorInfo) -> int | None:
    return None if info.shape is None else len(info.shape)


def _is_column(info: TensorInfo) -> bool:
    return info.shape is not None and len(info.shape) == 2 and info.shape[1] == 1


def _unfit(name: str, method: str, why: str, fix: str = "") -> ExportRefused:
    return ExportRefused(
        f"The signature {name} cannot have the method {method}: {why}.",
        code="METHOD_DOES_NOT_FIT",
        fix=fix or "Leave it at predict, which carries everything.",
    )
