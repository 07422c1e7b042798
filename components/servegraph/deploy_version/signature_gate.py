"""What would break a client of the version now live: the signature gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.signatures import Signatures, shape_text


def breaking_changes(live: Signatures, new: Signatures) -> tuple[str, ...]:
    """Return, a sentence each, what breaks for a client of `live` with `new`; empty where nothing does.

    A further signature breaks nobody, nor does a further output beside several. A further input does
    (requests must name all inputs), and so does a second output (a lone one is answered without its name).
    """
    changes: list[str] = []
    for name, before in sorted(live.items()):
        after = new.get(name)
        changes += [f"signature {name!r} is gone"] if after is None else _changes(name, before, after)
    return tuple(changes)


def _changes(name: str, before: Signature, after: Signature) -> Iterator[str]:
    yield from _dropped_or_retyped(f"{name}: input", before.inputs, after.inputs)
    for extra in sorted(after.inputs.keys() - before.inputs.keys() - set(after.defaults)):
        yield f"{name}: input {extra!r} is new, and requests have to name every input"
    for input_name in sorted(before.inputs.keys() & after.inputs.keys()):
        have, want = before.inputs[input_name], after.inputs[input_name]
        if not _accepts(want, have):
            yield (
                f"{name}: input {input_name!r} had the shape {shape_text(have.shape)}, "
                f"and only {shape_text(want.shape)} fits now"
            )
    yield from _dropped_or_retyped(f"{name}: output", before.outputs, after.outputs)
    for output_name in sorted(before.outputs.keys() & after.outputs.keys()):
        was, is_now = before.outputs[output_name].shape, after.outputs[output_name].shape
        if was is not None and is_now is not None and len(was) != len(is_now):
            yield f"{name}: output {output_name!r} had the shape {shape_text(was)}, now {shape_text(is_now)}"
    if len(before.outputs) == 1 and len(after.outputs) > 1 and before.outputs.keys() <= after.outputs.keys():
        yield f"{name}: the only output {next(iter(before.outputs))!r} has company now, so answers name it"


def _dropped_or_retyped(what: str, before: Mapping[str, TensorInfo], after: Mapping[str, TensorInfo]) -> Iterator[str]:
    for name, was in sorted(before.items()):
        if name not in after:
            yield f"{what} {name!r} is gone"
        elif was.dtype != after[name].dtype:
            yield f"{what} {name!r} was {was.dtype}, now {after[name].dtype}"


def _accepts(new: TensorInfo, old: TensorInfo) -> bool:
    """Whether every shape that `old` accepted is still accepted."""
    if new.shape is None:
        return True
    if old.shape is None or len(old.shape) != len(new.shape):
        return False
    return all(want in (None, have) for want, have in zip(new.shape, old.shape, strict=True))
