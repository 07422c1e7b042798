"""The line in front of a model: what shares a call, what waits, what is refused. Calls are stand-ins."""

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from servegraph.errors import Refusal, RequestError
from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.decode import PredictRequest
from servegraph.serve.lane import Lane, LaneLimits, Outcome
from servegraph.serve.model import INLINE_BODY_BYTES, Model
from servegraph.serve.sharing import answer, different_rows, in_one, is_shareable, share
from servegraph.serve.signatures import ServingGraph


def request(values, signature="serving_default"):
    return PredictRequest(signature, "row", {"x": np.asarray(values, np.float32)})


class Double:
    """Twice the input; notes the rows of each call, holds calls back at `gate`, refuses 13 in any batch."""

    def __init__(self):
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, signature, inputs):
        assert self.gate.wait(10)
        self.calls.append(len(inputs["x"]))
        if (inputs["x"] == 13).any():
            raise Refusal("13 is not taken", code="INVALID_ARGUMENT")
        return {"y": inputs["x"] * 2}

    def lane(self, shareable=("serving_default",), rows=4, **limits):
        return Lane(
            lambda requests: answer(requests, self.run, lambda outputs, _: repr(outputs["y"].tolist()).encode()),
            lambda waiting: share(waiting, shareable, rows),
            LaneLimits(**limits),
            "test",
        )


def ask_all(lane, requests, model=None):
    """Ask in one turn of the loop, open the gate, and return the answers in the order of the requests."""

    async def run():
        loop = asyncio.get_running_loop()
        futures = []
        for one in requests:
            future = loop.create_future()
            futures.append(future)
            lane.ask(one, future.set_result)
            if model is not None:
                await asyncio.sleep(0)
        if model is not None:
            model.gate.set()
        return await asyncio.gather(*futures)

    return asyncio.run(run())


def test_what_comes_together_shares_a_call_up_to_the_limit_of_rows():
    model = Double()
    answers = ask_all(model.lane(), [request([1]), request([2, 3]), request([4]), request([5])])
    assert answers == [b"[2.0]", b"[4.0, 6.0]", b"[8.0]", b"[10.0]"]
    assert model.calls == [4, 1]


def test_what_comes_during_a_call_shares_the_next():
    model = Double()
    model.gate.clear()
    answers = ask_all(model.lane(rows=64), [request([value]) for value in range(5)], model)
    assert answers == [b"[0.0]", b"[2.0]", b"[4.0]", b"[6.0]", b"[8.0]"]
    assert len(model.calls) == 2
    assert sum(model.calls) == 5


@pytest.mark.parametrize(
    "requests",
    [
        [request([[1]]), request([[1, 2]])],  # other inner dimensions
        [request([1]), request([1], "other")],
        [request(1.0), request([1])],  # no batch dimension
    ],
)
def test_what_does_not_fit_together_is_asked_apart(requests):
    model = Double()
    if requests[0].inputs["x"].ndim == 0:
        model.run = lambda signature, inputs: {"y": inputs["x"] * 2}
    assert len(ask_all(model.lane(shareable=("serving_default", "other")), requests)) == 2
    assert 2 not in model.calls


def test_signatures_that_may_not_share_do_not():
    model = Double()
    ask_all(model.lane(shareable=()), [request([1]), request([2])])
    assert model.calls == [1, 1]


def test_a_bad_request_costs_its_neighbours_nothing_but_time():
    model = Double()
    good, bad, other = ask_all(model.lane(), [request([1]), request([13]), request([3])])
    assert (good, other) == (b"[2.0]", b"[6.0]")
    assert isinstance(bad, Refusal)
    assert bad.message == "13 is not taken"


def test_outputs_without_a_row_for_each_are_not_shared_out():
    model = Double()
    model.run = lambda signature, inputs: {"y": inputs["x"].sum(keepdims=True)}
    assert ask_all(model.lane(), [request([1, 2]), request([3])]) == [b"[3.0]", b"[3.0]"]


def test_a_full_line_refuses():
    model = Double()
    lane = model.lane(waiting=2)

    async def run():
        done = []
        model.gate.clear()
        lane.ask(request([1]), done.append)
        await asyncio.sleep(0.05)
        for value in (2, 3):
            lane.ask(request([value]), done.append)
        with pytest.raises(Refusal) as caught:
            lane.ask(request([4]), done.append)
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        assert lane.load == (2, 1)
        model.gate.set()
        while len(done) < 3:
            await asyncio.sleep(0.01)
        lane.ask(request([5]), done.append)
        while len(done) < 4:
            await asyncio.sleep(0.01)
        return done

    assert asyncio.run(run())[-1] == b"[10.0]"


def test_a_request_that_takes_too_long_is_told_so_once():
    model = Double()
    lane = model.lane(timeout_s=0.1)

    async def run():
        done = []
        model.gate.clear()
        for value in (1, 2):
            lane.ask(request([value]), done.append)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.5)
        model.gate.set()
        await asyncio.sleep(0.1)
        return done

    answers = asyncio.run(run())
    assert [error.code for error in answers] == ["DEADLINE_EXCEEDED"] * 2


def test_a_dropped_lane_ends_its_threads():
    before = set(threading.enumerate())  # lanes of other tests may still be ending
    model = Double()
    lane = model.lane(threads=2)
    ask_all(lane, [request([1])])
    gone = weakref.ref(lane)
    threads = [thread for thread in set(threading.enumerate()) - before if thread.name == "test"]
    assert len(threads) == 2
    del lane
    end = time.monotonic() + 5  # the thread may still be letting go of its last call
    while gone() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_only_free_leading_dimensions_on_both_sides_are_shareable():
    def info(shape, encoding="dense"):
        return TensorInfo((), "float32", shape, encoding)

    assert is_shareable(Signature("", {"x": info((None, 2))}, {"y": info((None,))}))
    for shape in ((1, 2), (), None):
        assert not is_shareable(Signature("", {"x": info(shape)}, {"y": info((None,))}))
        assert not is_shareable(Signature("", {"x": info((None,))}, {"y": info(shape)}))
    assert not is_shareable(Signature("", {"x": info((None,), "sparse")}, {"y": info((None,))}))
    assert not is_shareable(Signature("", {"x": info((None,))}, {"y": info((None,))}, ("x",)))
    # How long an answer is must follow from how long what is asked is, which those of one call have in common.
    assert is_shareable(Signature("", {"x": info((None, None))}, {"y": info((None, None))}))
    assert not is_shareable(Signature("", {"x": info((None, 2))}, {"y": info((None, None))}))


def test_rows_to_try_are_put_together_of_requests_that_fit_and_differ():
    two, wide = {"x": np.array([[1.0, 1], [2, 2], [1, 1]])}, {"x": np.ones((1, 3))}
    groups = different_rows([two, two, wide, {"x": np.zeros((0, 2))}, {"x": np.float32(1)}])
    assert [in_one(rows)["x"].tolist() for rows in groups if rows] == [[[1, 1], [2, 2]], [[1, 1, 1]]]


def test_what_a_large_request_held_goes_with_its_refusal() -> None:
    info = TensorInfo(tensors=(), dtype="float32", shape=(None, 8), encoding="dense")
    signature = Signature("", {"x": info}, {"y": info})
    model = object.__new__(Model)
    model.graph = ServingGraph({"serving_default": signature}, declares_shapes=True)
    body = b'{"instances": [' + b"[]," * 50_000 + b"[]]}"
    assert len(body) > INLINE_BODY_BYTES

    async def refused() -> Outcome:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        model.ask("predict", body, answer.set_result)
        return await answer

    def lists() -> int:
        return sum(type(found) is list for found in gc.get_objects())

    gc.collect()
    gc.disable()  # circles are looked for now and then; until then each such request would take 100 times its size
    try:
        before = lists()
        assert isinstance(asyncio.run(refused()), RequestError)
        deadline_s = time.monotonic() + 10
        while lists() >= before + 10_000:  # the thread that decoded it may be about to let go of it
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    finally:
        gc.enable()
