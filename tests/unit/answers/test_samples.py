"""How records come together in requests."""

import numpy as np

from servegraph.answers.samples import Samples


def test_models_are_asked_small_requests_first():
    lengths = {
        rows: [len(request["x"]) for request in Samples({"x": np.arange(rows)}, rows, True).requests()]
        for rows in (1, 3, 16, 17, 150)
    }
    assert lengths == {1: [1], 3: [1, 2], 16: [1, 2, 13], 17: [1, 2, 13, 1], 150: [1, 2, 13, 64, 64, 6]}


def test_a_request_has_records_of_one_length():
    parts = [{"x": np.zeros((rows, length))} for rows, length in ((2, 1), (1, 2), (20, 3))]
    asked = Samples(parts[0], 23, False, more=tuple(parts[1:]))
    assert [request["x"].shape for request in asked.requests()] == [(1, 1), (1, 1), (1, 2), (13, 3), (7, 3)]


def test_requests_of_one_size_hold_whole_ones_and_their_labels():
    parts = [{"x": np.arange(5)}, {"x": np.arange(5, 6)}, {"x": np.arange(6, 10)}]
    asked = Samples(parts[0], 10, False, more=tuple(parts[1:]), labels=tuple("abcdefghij"))
    by_two = asked.in_requests_of(2)
    assert [request["x"].tolist() for request in by_two.requests()] == [[0, 1], [2, 3], [6, 7], [8, 9]]
    assert (by_two.labels, by_two.is_batched, by_two.rows) == (tuple("abcdghij"), False, 4)
    assert asked.in_requests_of(6) is None
    made = Samples({"x": np.arange(3)}, 3, True).in_requests_of(5)
    assert [request["x"].tolist() for request in made.requests()] == [[0, 1, 2, 0, 1]]
