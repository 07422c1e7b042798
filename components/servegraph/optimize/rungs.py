"""The ladder's rungs: a table of pure functions from draft to draft, from least to most lossy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from servegraph.answers.gate import Loss
from servegraph.optimize import speed
from servegraph.optimize.compressed import expected_saving_bytes, plan_compressed
from servegraph.optimize.constants import as_constants
from servegraph.optimize.fold import fold
from servegraph.optimize.frozen import as_variables
from servegraph.optimize.int4 import plan_int4
from servegraph.optimize.names import shorten
from servegraph.optimize.resident import keep_resident, stay_resident
from servegraph.optimize.share import share
from servegraph.optimize.tables import store_tables
from servegraph.rewriting.contents import size_bytes
from servegraph.rewriting.draft import Draft
from servegraph.rewriting.forms import Form, Planner, plan_half, plan_narrow, saves
from servegraph.rewriting.int8 import plan_int8
from servegraph.rewriting.strip import strip, strip_branching
from servegraph.rewriting.weights import weights_of
from servegraph.savedmodel.bundle_reader import BundleReader

_GLANCES = 256


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: what it does in words, and what it may do to the answers.

    `change` is the function. A rung with `plan` instead stores each weight in the form that `plan` finds for it. Lossy
    rungs are climbed only until the budget is met, as are two that lose nothing: one that `costs_names`, which makes a
    graph harder to read, and one that `costs_loading`, which makes a model slower to load. A rung with `speed` is for
    the served model, not for its size: it is kept only where the model answers at least that many times as fast, in no
    more memory than the original takes. Above 1 that is as before the rung; below, as the original: what saves memory
    may cost what other rungs won. It is tried only where it is named; where no rungs are, `unasked` is what it does.
    One that `trims` forgets words; it too is tried only where it is named. One that `grows` is kept for what it does
    when the model is served, even where its files are up to 1 % larger by it. Where the gate refuses what `change`
    made, `milder` is tried.
    """

    name: str
    what: str
    loss: Loss
    change: Callable[[Draft], Draft] | None = None
    unasked: Callable[[Draft], Draft] | None = None
    milder: Callable[[Draft], Draft] | None = None
    plan: Planner | None = None
    speed: float | None = None
    costs_names: bool = False
    costs_loading: bool = False
    trims: bool = False
    grows: bool = False

    @property
    def is_default(self) -> bool:
        """Whether it is one of the ladder where no rungs are named."""
        return self.unasked is not None or (self.speed is None and not self.trims)

    @property
    def may_shrink(self) -> bool:
        """Whether it is there to make the files smaller."""
        return self.speed is None

    @property
    def bears_asking_later(self) -> bool:
        """Whether it is asked together with its neighbours: it is expected to change no answer."""
        return self.loss != "tolerance" and self.speed is None and not self.costs_loading

    @property
    def waits(self) -> bool:
        """Whether it is climbed only where a budget asks for it, or where it is named."""
        return self.costs_names or self.costs_loading or (self.loss == "tolerance" and self.speed is None)


def narrow(draft: Draft) -> Draft:
    """Store integers in the smallest type that holds all of them."""
    with draft.tensors() as tensors:
        forms = planned(draft, plan_narrow, tensors)
    return replace(draft, forms={**draft.forms, **forms})


def compress(draft: Draft) -> Draft:
    """Deflate what is stored of each weight, where that pays."""
    forms: dict[str, Form] = {}
    with draft.tensors() as tensors:
        for weight in weights_of(draft):
            form = plan_compressed(weight.content, draft.forms.get(weight.key), tensors)
            if form is not None:
                forms[weight.key] = form
    return replace(draft, forms={**draft.forms, **forms})


def expected_by_compressing(draft: Draft) -> int:
    """Return about how many bytes `compress` would save, judged by a glance at some of the weights."""
    weights = weights_of(draft)
    some = weights[:: 1 + len(weights) // _GLANCES]
    with draft.tensors() as tensors:
        saved = sum(expected_saving_bytes(w.content, draft.forms.get(w.key), tensors) for w in some)
    seen, of_all = (sum(size_bytes(w.content) for w in which) for which in (some, weights))
    return saved * of_all // max(seen, 1)


def planned(draft: Draft, plan: Planner, tensors: BundleReader | None) -> Mapping[str, Form]:
    """Return the form of each weight that gets smaller by it than it is stored now."""
    forms: dict[str, Form] = {}
    for weight in weights_of(draft):
        form = plan(weight.content, tensors)
        if form is not None and saves(form, weight.content) and _is_smaller(form, draft.forms.get(weight.key)):
            forms[weight.key] = form
    return forms


def _is_smaller(form: Form, now: Form | None) -> bool:
    return now is None or form.stored_bytes < now.stored_bytes


# It loses nothing, so where a model fits by it, it comes before the next rung that does; else it comes last.
COMPRESS = Rung("compress", "deflate what is stored, where that pays", "none", change=compress, costs_loading=True)

# Adding a rung is adding a row.
RUNGS: tuple[Rung, ...] = (
    # Of operations without a branch between them TensorFlow fuses more, and rounds otherwise: then `fold` settles it.
    Rung("strip", "drop what no signature reaches, and stray files", "none", change=strip, milder=strip_branching),
    Rung("share", "store equal tensors once, and equal signatures", "none", change=share),
    Rung("narrow", "store integers in the smallest type that holds them", "none", change=narrow),
    Rung("fold", "inline functions, fold batch norm and constants", "rounding", change=fold, grows=True),
    Rung("trim", "shorten vocabularies to what the samples look up", "tolerance", trims=True),
    Rung("tables", "restore large vocabularies, so that the graph is small", "none", change=store_tables, grows=True),
    Rung("shorten", "write names and vocabularies short", "none", change=shorten, costs_names=True),
    Rung("halve", "store weights as float16 or bfloat16", "tolerance", plan=plan_half),
    Rung("quarter", "store weights as int8 with scales per channel", "tolerance", plan=plan_int8),
    Rung("eighth", "store weights as int4 in groups of 32 with a scale each", "tolerance", plan=plan_int4),
    COMPRESS,
    Rung(
        "variables",
        "keep the weights of a frozen graph with the variables",
        "rounding",
        change=as_variables,
        unasked=as_variables,
        speed=speed.AS_FAST,
    ),
    Rung(
        "resident",
        "keep embedding tables small in memory too",
        "tolerance",
        change=keep_resident,
        unasked=stay_resident,
        speed=speed.AS_FAST,
    ),
    Rung("constants", "put small weights into the graph", "rounding", change=as_constants, speed=speed.FASTER),
)
