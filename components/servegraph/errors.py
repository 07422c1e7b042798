"""Every error servegraph raises, in one tree.

    ServegraphError
    ├── InputError (ValueError)           exit 2: what was given cannot be used
    │   ├── DataError                     a table, a TFRecord, a value in it
    │   ├── SchemaError                   a schema file
    │   ├── ModelError                    not a SavedModel, or a damaged one
    │   └── RequestError                  a prediction request
    ├── StorageError (OSError)            exit 2: a path or object cannot be read or written
    └── Refusal (RuntimeError)            exit 1: the input was fine, the answer is no
        ├── TrainerError                  the trainer raised, or returned no model
        ├── ExportRefused                 the exported graph is not serving-only, or answers differ
        ├── BudgetNotMet                  no variant within the tolerance fits
        ├── NoMachineFits                 no machine of the platform can hold the model
        └── DeployRefused                 a probe failed, a signature changed, a lock is held, …

An error has a stable `code`, a message that says what was asked and what was found, and a `fix` that says
what to do. Each class is also the builtin error that a caller would expect, so code that knows nothing of
this tree still catches the right thing.
"""

from __future__ import annotations

import re
from typing import ClassVar

_LONGEST_TEXT = 2000  # characters; what is quoted from elsewhere may be of any length
_NOISE = re.compile(
    r"\x1b\[[0-9;]*[A-Za-z]"  # colours of a terminal
    r"|\{\{function_node [^{}]*\}\} ?"  # TensorFlow's name of a function that it generated, before what a kernel says
)


class ServegraphError(Exception):
    """Base of the tree: `code`, `message` (one line) and `fix` (one line, may be empty)."""

    default_code: ClassVar[str] = "ERROR"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str = "", code: str | None = None) -> None:
        """Build the error; both texts are made one printable line, so that quoted input cannot break a log."""
        self.message = _one_line(message)
        self.fix = _one_line(fix)
        self.code = code or self.default_code
        super().__init__(self.message)

    def __str__(self) -> str:
        """`[CODE] message Fix: fix`, on one line."""
        return f"[{self.code}] {self.message}" + (f" Fix: {self.fix}" if self.fix else "")

    def parts(self) -> dict[str, str]:
        """Return what tells it to another process, see `as_told`."""
        return {"kind": type(self).__name__, "message": self.message, "fix": self.fix, "code": self.code}

    def __reduce__(self) -> tuple[object, ...]:
        """Keep `code` and `fix` across processes."""
        return (_rebuild, (type(self), self.message, self.fix, self.code))


def in_short(error: Exception) -> str:
    """Return an error in a line: one of decoding would quote all that it was given, of a missing key is the key."""
    if isinstance(error, KeyError) and error.args:
        return f"it has no {str(error.args[0])[:200]!r}"
    return f"{type(error).__name__}: {str(error)[:200]}"


def as_told(kind: str, message: str, fix: str, code: str) -> ServegraphError:
    """Return the error that another process told by its `parts`."""
    error: ServegraphError = globals()[kind](message, fix=fix, code=code)
    return error


def _one_line(text: str) -> str:
    words = " ".join(_NOISE.sub("", text).split())
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    return printable if len(printable) <= _LONGEST_TEXT else printable[:_LONGEST_TEXT] + " …"


def _rebuild(cls: type[ServegraphError], message: str, fix: str, code: str) -> ServegraphError:
    return cls(message, fix=fix, code=code)


class InputError(ServegraphError, ValueError):
    """What was given cannot be used."""

    default_code = "BAD_INPUT"
    exit_code = 2


class DataError(InputError):
    """A data file, a column or a value cannot be used."""

    default_code = "BAD_DATA"


class SchemaError(InputError):
    """A schema file cannot be used."""

    default_code = "BAD_SCHEMA"


class ModelError(InputError):
    """A directory is not a SavedModel, or a damaged one."""

    default_code = "NOT_A_SAVED_MODEL"


class RequestError(InputError):
    """A prediction request does not match the signature."""

    default_code = "BAD_REQUEST"


class StorageError(ServegraphError, OSError):
    """A path or object cannot be read or written."""

    default_code = "STORAGE"
    exit_code = 2


class Refusal(ServegraphError, RuntimeError):
    """The input was fine; the answer is no."""

    default_code = "REFUSED"


class TrainerError(Refusal):
    """A trainer raised, or returned something that is not a Keras model."""

    default_code = "TRAINER_FAILED"


class ExportRefused(Refusal):
    """An exported graph is not serving-only, has a fixed batch dimension, or answers differently."""

    default_code = "EXPORT_REFUSED"


class BudgetNotMet(Refusal):
    """No variant of the model within the tolerance fits the budget."""

    default_code = "BUDGET_NOT_MET"


class NoMachineFits(Refusal):
    """No machine of the platform can hold the model."""

    default_code = "NO_MACHINE_FITS"


class DeployRefused(Refusal):
    """A version was not deployed: a probe failed, a signature changed, or another deploy holds the lock."""

    default_code = "DEPLOY_REFUSED"
