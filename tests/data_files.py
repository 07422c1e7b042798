"""Data files that tests write, and the schema of one."""

import struct
from dataclasses import replace

import google_crc32c
import numpy as np

from servegraph.data.infer import infer
from servegraph.data.schema import Column, Schema

SCHEMA = Schema(
    columns=(Column("age", "float32"), Column("job", "string"), Column("n", "int64"), Column("y", "string")),
    label="y",
)
NUMBERS = replace(SCHEMA, columns=(*SCHEMA.columns[:-1], Column("y", "float32")))
GOOD = "age,job,n,y\n39, State-gov,1, <=50K\n50, Private,2, >50K\n"


def write(path, text):
    path.write_text(text)
    return str(path)


def masked(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write_tfrecord(path, rows):
    from tensorflow.core.example import example_pb2

    with path.open("wb") as file:
        for row in rows:
            example = example_pb2.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                if isinstance(value, str):
                    feature.bytes_list.value.append(value.encode())
                elif isinstance(value, int):
                    feature.int64_list.value.append(value)
                else:
                    feature.float_list.value.extend(np.atleast_1d(value))
            data = example.SerializeToString()
            head = struct.pack("<Q", len(data))
            file.write(head + struct.pack("<I", masked(head)) + data + struct.pack("<I", masked(data)))
    return str(path)


def inferred(path, label=None):
    return infer(path, label).schema
