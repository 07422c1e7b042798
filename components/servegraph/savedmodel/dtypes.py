"""The element types of tensors: number in the protobuf enum, name, bytes per element.

Source: `DataType` in tensorflow/core/framework/types.proto; sizes from `DataTypeSize` in framework/types.cc.
"""

from __future__ import annotations

from typing import NamedTuple


class DType(NamedTuple):
    """One row: `size_bytes` is None where an element has no fixed size, or is packed into half a byte."""

    number: int
    name: str
    size_bytes: int | None


DTYPES = (
    DType(1, "float32", 4),
    DType(2, "float64", 8),
    DType(3, "int32", 4),
    DType(4, "uint8", 1),
    DType(5, "int16", 2),
    DType(6, "int8", 1),
    DType(7, "string", None),
    DType(8, "complex64", 8),
    DType(9, "int64", 8),
    DType(10, "bool", 1),
    DType(11, "qint8", 1),
    DType(12, "quint8", 1),
    DType(13, "qint32", 4),
    DType(14, "bfloat16", 2),
    DType(15, "qint16", 2),
    DType(16, "quint16", 2),
    DType(17, "uint16", 2),
    DType(18, "complex128", 16),
    DType(19, "float16", 2),
    DType(20, "resource", None),
    DType(21, "variant", None),
    DType(22, "uint32", 4),
    DType(23, "uint64", 8),
    DType(24, "float8_e5m2", 1),
    DType(25, "float8_e4m3fn", 1),
    DType(26, "float8_e4m3fnuz", 1),
    DType(27, "float8_e4m3b11fnuz", 1),
    DType(28, "float8_e5m2fnuz", 1),
    DType(29, "int4", 1),  # a byte an element in memory and on disk, of which half is used
    DType(30, "uint4", 1),
    DType(31, "int2", 1),
    DType(32, "uint2", 1),
    DType(33, "float4_e2m1fn", 1),
)

BY_NUMBER = {row.number: row for row in DTYPES}
BY_NAME = {row.name: row for row in DTYPES}
REF_OFFSET = 100  # DT_FLOAT_REF is 101: the type of a TF1 variable's handle


def dtype_name(number: int) -> str:
    """Return the name of a type; `float32_ref` for references, `unknown(77)` for what this table lacks."""
    if row := BY_NUMBER.get(number):
        return row.name
    if row := BY_NUMBER.get(number - REF_OFFSET):
        return f"{row.name}_ref"
    return f"unknown({number})"
