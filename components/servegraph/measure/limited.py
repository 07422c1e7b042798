"""`python -m servegraph.measure.limited CPUS MEMORY GROUP …`: the prediction server below the limits given first."""

from __future__ import annotations

import sys

from servegraph.measure.cgroups import Group
from servegraph.measure.limits import Limits, take_on


def main(arguments: list[str]) -> int:
    """Take the limits on, then serve as the other arguments say."""
    cpus, memory_bytes, group = arguments[:3]
    take_on(Limits(int(cpus), int(memory_bytes) or None), Group.named(group) if group else None)

    from servegraph.serve.__main__ import main as serve

    return serve(arguments[3:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
