"""Which GPUs a model may have: the policy that was asked for, and what speaks against each GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from servegraph.errors import InputError
from servegraph.machines.catalog import Accelerator, Catalogue, Platform
from servegraph.machines.sizes import format_size

ENDS_SOON = timedelta(days=365)


@dataclass(frozen=True)
class Policy:
    """`auto`, `none`, or `named`: one GPU, in the count asked for or the smallest that the machine allows."""

    kind: Literal["auto", "none", "named"]
    accelerator: Accelerator | None = None
    count: int | None = None

    def __str__(self) -> str:
        """`2 x NVIDIA_TESLA_T4`, `NVIDIA_TESLA_T4`, or the kind."""
        name = self.accelerator.name if self.accelerator else self.kind
        return f"{self.count} x {name}" if self.count else name


@dataclass(frozen=True)
class Objection:
    """What speaks against a GPU, with a stable code and what to do instead."""

    code: str
    reason: str
    fix: str


def parse_policy(text: str, catalogue: Catalogue) -> Policy:
    """Return the policy of `auto`, `none`, `TYPE` or `TYPE:COUNT`.

    Raises:
        InputError: the GPU is not known (code `UNKNOWN_ACCELERATOR`), or no machine has it in that count
            (code `BAD_ACCELERATOR_COUNT`).
    """
    if text in ("auto", "none"):
        return Policy("auto" if text == "auto" else "none")
    name, _, count_text = text.partition(":")
    accelerator = catalogue.accelerator(name)
    if not count_text:
        return Policy("named", accelerator)
    allowed = sorted({count for counts in accelerator.counts_by_max_vcpus.values() for count in counts})
    if not re.fullmatch(r"[0-9]+", count_text) or int(count_text) not in (allowed or range(1, 17)):
        raise InputError(
            f"{text!r} asks for {count_text!r} of {accelerator.name}; machines have "
            f"{', '.join(map(str, allowed)) or '1 to 16'} of it.",
            code="BAD_ACCELERATOR_COUNT",
            fix=f"Give {name}, or {name}:COUNT with one of these counts.",
        )
    return Policy("named", accelerator, int(count_text))


def objection(gpu: Accelerator, memory_bytes: int, today: date) -> Objection | None:
    """Return what speaks against a GPU on any platform, or None."""
    if gpu.has_ended(today):
        when = f" of {gpu.end_of_support}" if gpu.end_of_support not in (None, date.min) else ""
        return Objection("ACCELERATOR_ENDED", f"is past its end of support{when}", "Give another GPU, or auto.")
    if memory_bytes > gpu.memory_bytes:
        # Not times the count: TensorFlow Serving does not spread one model over several GPUs.
        return Objection(
            "ACCELERATOR_TOO_SMALL",
            f"has {format_size(gpu.memory_bytes)} of memory; the model needs {format_size(memory_bytes)}",
            "Shrink the model with `servegraph optimize`, or serve it on a CPU with --accelerator none.",
        )
    return None


def objection_on_n1(gpu: Accelerator, platform: Platform, memory_bytes: int, today: date) -> Objection | None:
    """Return what speaks against a GPU on the N1 machines of a platform, or None."""
    if gpu.built_into:
        return Objection(
            "ACCELERATOR_NOT_ON_N1",
            f"comes built into {gpu.built_into.upper()} machines; GPUs are placed on N1 machines only",
            "Give a GPU that N1 machines take, or deploy with the machine type named by hand.",
        )
    if platform.name not in gpu.platforms:
        return Objection("ACCELERATOR_NOT_OFFERED", f"is not offered on {platform.title}", "Give another GPU, or auto.")
    return objection(gpu, memory_bytes, today)


def ending_warning(gpu: Accelerator, today: date) -> str | None:
    """Return the warning that a GPU's support ends within a year, or None."""
    if gpu.end_of_support is None or gpu.end_of_support - today > ENDS_SOON:
        return None
    days = (gpu.end_of_support - today).days
    return f"ACCELERATOR_ENDS_SOON: support of {gpu.name} ends on {gpu.end_of_support}, in {days} days."
