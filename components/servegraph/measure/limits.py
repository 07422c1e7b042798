"""CPUs and memory that a measured server may use: a control group where one can be made, else affinity and rlimit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from servegraph.errors import InputError
from servegraph.machines import this_machine
from servegraph.machines.sizes import format_size
from servegraph.measure.cgroups import Group

How = Literal["cgroup", "affinity+rlimit"]

# RLIMIT_DATA counts address space that is set aside and never used, such as the stacks of idle threads; so it stands
# this far above the limit, as a stop, and it is the measured peak that says whether the model fits.
RLIMIT_SLACK_BYTES = 2 << 30


@dataclass(frozen=True)
class Limits:
    """What the child may use; `memory_bytes` None is no limit of ours."""

    cpus: int
    memory_bytes: int | None = None


def check(limits: Limits) -> None:
    """Check that this machine has what is to be measured.

    Raises:
        InputError: it has fewer CPUs or less memory (code `MACHINE_TOO_SMALL`).
    """
    here = this_machine.read()
    if not 1 <= limits.cpus <= here.vcpus:
        raise InputError(
            f"{limits.cpus} CPUs cannot be measured here: this process may use {here.vcpus}.",
            code="MACHINE_TOO_SMALL",
            fix=f"Give --cpus 1 to {here.vcpus}, or measure on a larger machine.",
        )
    if limits.memory_bytes is not None and limits.memory_bytes > here.memory_bytes:
        raise InputError(
            f"{format_size(limits.memory_bytes)} of memory cannot be measured here: there are "
            f"{format_size(here.memory_bytes)}.",
            code="MACHINE_TOO_SMALL",
            fix="Give a smaller --memory, or measure on a larger machine.",
        )


def take_on(limits: Limits, group: Group | None) -> None:
    """Limit this process and all that it starts."""
    if group is not None:
        group.join()
    # TensorFlow and this server count the CPUs they may run on, whatever a group's quota says.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: limits.cpus])
    if group is None and limits.memory_bytes is not None:
        import resource

        most = limits.memory_bytes + RLIMIT_SLACK_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
