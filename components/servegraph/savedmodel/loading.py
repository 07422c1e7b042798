"""What `tf.saved_model.load` in Python runs by itself, going by the object graph: resources are made and filled.

Sources: tensorflow/core/protobuf/saved_object_graph.proto; tensorflow/python/saved_model/load.py.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from servegraph.savedmodel.wire import decoded, fields, payloads, text

# Children of a resource that are called when it is made, filled and given up.
_CALLED = ("_create_resource", "_initialize", "_destroy_resource")
_CHILD, _FUNCTION, _CONCRETE_FUNCTION, _SAVEABLE = 1, 6, 8, 11  # fields of a SavedObject
_RESTORE = 3  # of a SaveableObject: the function that fills an object from the checkpoint
# Where an object may call one: a name of these, or the head of a saveable and its key or value. A model has thousands
# of objects, nearly all of them variables and functions, which are not looked into.
_MAY_CALL = rb"_create_resource|_initialize|_destroy_resource|(?:Z|\xda\x80*\x00)[\x80-\xff]*[\x00-\x7f][\n\x12]"


def functions_run_on_loading(object_graph: bytes) -> tuple[str, ...]:
    """Return the names of the functions that loading a SavedObjectGraph in Python runs. Raises `Malformed`."""
    suspects = [match.start() for match in re.finditer(_MAY_CALL, object_graph)]
    if not suspects:
        return ()
    objects = list(payloads(object_graph, 1))
    starts = [start for start, _ in objects]
    looked_at = sorted({bisect_right(starts, position) - 1 for position in suspects} - {-1})
    called = dict.fromkeys(function for number in looked_at for function in _called(object_graph, *objects[number]))
    names = (name for number in called if number < len(objects) for name in _names(object_graph, *objects[number]))
    return tuple(dict.fromkeys(names))


def _called(content: bytes, start: int, end: int) -> Iterator[int]:
    """Yield the numbers of the objects that are functions which one object has called on loading."""
    for field in fields(content, start, end):
        if field.number == _CHILD:
            number, name = 0, ""
            for part in fields(content, field.start, field.end):
                if part.number == 1:
                    number = part.value
                elif part.number == 2:
                    name = text(content, part)
            if name in _CALLED:
                yield number
        elif field.number == _SAVEABLE:
            for value_start, value_end in payloads(content, 2, field.start, field.end):
                for part in fields(content, value_start, value_end):
                    if part.number == _RESTORE:
                        yield part.value


def _names(content: bytes, start: int, end: int) -> Iterator[str]:
    """Yield the names of the concrete functions of an object, none if it is something else."""
    for number in (_FUNCTION, _CONCRETE_FUNCTION):
        for function_start, function_end in payloads(content, number, start, end):
            for name_start, name_end in payloads(content, 1, function_start, function_end):
                yield decoded(content[name_start:name_end])
