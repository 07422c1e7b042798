"""What a call costs by itself, for inputs that are made to cost a reader far more than their size."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def processor_s(call: Callable[[], object], limit_s: float) -> float:
    """Processor seconds that `call` takes: the least of three when the first is above `limit_s`.

    What other tests left in memory does not count: the garbage collector would go over it (a few tenths of a second
    for what TensorFlow and KFP hold) as often as `call` makes much. A machine that others use too makes any call slow
    once; what an input makes slow is slow every time.
    """
    gc.collect()
    gc.freeze()
    try:
        spent_s = _once(call)
        for _ in range(2):
            if spent_s < limit_s:
                break
            spent_s = min(spent_s, _once(call))
        return spent_s
    finally:
        gc.unfreeze()


def _once(call: Callable[[], object]) -> float:
    before_s = time.process_time()
    call()
    return time.process_time() - before_s
