import ml_dtypes
import numpy as np
import pytest

from servegraph.answers.compare import compare, together


def one(**outputs):
    return [{name: np.array(value) for name, value in outputs.items()}]


def test_equal_answers_are_identical():
    answers = one(p=[[0.2, 0.8], [0.6, 0.4]], c=np.array([b"b", b"a"], object))
    found = compare(answers, answers)
    assert found.identical
    assert (found.rows, found.agreement) == (2, 1.0)


def test_the_decision_is_the_largest_of_several():
    found = compare(one(p=[[0.2, 0.8], [0.51, 0.49]]), one(p=[[0.3, 0.7], [0.49, 0.51]]))
    assert found.agreement == 0.5
    assert found.max_abs_diff == pytest.approx(0.1)
    assert found.max_relative_diff == pytest.approx(0.125)
    assert not found.identical


def test_a_single_probability_decides_at_one_half_and_a_measure_decides_nothing():
    assert compare(one(p=[0.49, 0.9]), one(p=[0.51, 0.8])).agreement == 0.5
    assert compare(one(price=[100.0, 3.0]), one(price=[101.0, 2.0])).agreement == 1.0


def test_amounts_agree_within_a_twentieth_of_their_spread():
    before = np.array([*np.linspace(-100, 100, 19), np.nan])
    spread = before[:-1].std()
    changed = before + spread * np.array([0.06, -0.2, *[0.04, -0.04] * 9])
    asked = [{"price": row} for row in before[:, None, None]], [{"price": row} for row in changed[:, None, None]]
    found = compare(*asked, judges_amounts=True)
    assert (found.agreement, found.outputs[0].decision) == (0.9, "amount")
    assert compare(*asked).agreement == 1.0
    few = [answers[:9] for answers in asked]
    assert compare(*few, judges_amounts=True).agreement == 1.0
    embedded = [[{"embedding": answer["price"]} for answer in answers] for answers in asked]
    assert compare(*embedded, judges_amounts=True).agreement == 1.0


def test_several_amounts_of_which_one_is_always_the_largest_are_amounts_by_column():
    """Temperature, pressure, humidity: pressure is the largest, whatever the weather."""
    before = np.random.default_rng(0).normal([15, 1013, 0.6], [8, 8, 0.1], (50, 3))
    after = before + np.array([0.0, 0.0, 0.05])
    found = compare(one(forecast=before), one(forecast=after), judges_amounts=True)
    assert (found.agreement, found.outputs[0].decision) == (pytest.approx(2 / 3), "amount")
    few = compare(one(forecast=before[:9]), one(forecast=after[:9]), judges_amounts=True)
    assert (few.agreement, few.outputs[0].decision) == (1.0, "largest")
    assert compare(one(forecast=before), one(forecast=after)).agreement == 1.0
    logits = np.random.default_rng(0).normal(size=(50, 3))
    assert compare(one(logits=logits), one(logits=logits), judges_amounts=True).outputs[0].decision == "largest"


@pytest.mark.parametrize("rates", [np.linspace(0.002, 0.126, 200), np.linspace(0.7, 0.9, 200)])
def test_probabilities_that_always_say_the_same_are_amounts(rates):
    before, after = [{"ctr": row} for row in rates[:, None, None]], [{"ctr": row} for row in rates[::-1, None, None]]
    found = compare(before, after, judges_amounts=True)
    assert (found.agreement < 0.2, found.outputs[0].decision) == (True, "amount")
    rates[:3] = 1 - rates[:3]
    assert compare(before, before, judges_amounts=True).outputs[0].decision == "yes or no"


def test_amounts_that_are_nearly_the_same_may_be_rounded():
    before = np.full((20, 1), 1000.0)
    assert compare(one(kelvin=before), one(kelvin=before + 0.009), judges_amounts=True).agreement == 1.0
    assert compare(one(kelvin=before), one(kelvin=before + 0.011), judges_amounts=True).agreement == 0.0


def test_one_output_that_changes_its_mind_is_enough():
    before = one(p=[[0.2, 0.8]], c=np.array([b"b"], object))
    after = one(p=[[0.2, 0.8]], c=np.array([b"a"], object))
    assert compare(before, after).agreement == 0.0


def test_nan_that_was_there_is_no_news():
    before = one(y=[np.nan, 1.0, np.inf])
    assert compare(before, before).identical
    after = compare(before, one(y=[np.nan, np.nan, np.inf]))
    assert after.new_non_finite == 1
    assert not after.identical


def test_batches_add_up():
    before = one(p=[[0.2, 0.8]]) + one(p=[[0.9, 0.1], [0.9, 0.1]])
    after = one(p=[[0.2, 0.8]]) + one(p=[[0.9, 0.1], [0.1, 0.9]])
    found = compare(before, after)
    assert (found.rows, found.agreement) == (3, pytest.approx(2 / 3))
    assert found.mean_abs_diff == pytest.approx(1.6 / 6)


def test_a_decision_does_not_depend_on_how_rows_are_batched():
    before = np.array([[0.3], [7.0], [0.4]])
    after = before + 0.15
    whole = compare(one(price=before), one(price=after))
    apart = compare([{"price": row[None]} for row in before], [{"price": row[None]} for row in after])
    assert whole.agreement == apart.agreement == 1.0
    assert whole.max_relative_diff == apart.max_relative_diff == pytest.approx(0.15 / 7)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64, ml_dtypes.float8_e4m3fn])
def test_every_float_is_a_float(kind):
    before = one(p=np.array([[0.25, 0.75], [1, 0]]).astype(kind))
    after = one(p=np.array([[0.75, 0.25], [1, 0]]).astype(kind))
    found = compare(before, after)
    assert (found.agreement, found.max_abs_diff, found.outputs[0].decision) == (0.5, 0.5, "largest")
    assert compare(before, before).identical


def test_infinity_of_the_other_sign_is_news_and_one_that_went_is_a_difference():
    before = one(y=[np.inf, 1.0])
    assert compare(before, one(y=[-np.inf, 1.0])).new_non_finite == 1
    assert compare(before, one(y=[np.nan, 1.0])).new_non_finite == 1
    went = compare(before, one(y=[3.0, 1.0]))
    assert (went.new_non_finite, went.max_abs_diff, went.identical) == (0, 0.0, False)


def test_an_output_without_a_batch_is_one_decision():
    before = [{"p": np.eye(2), "version": np.array([7, 7, 7])}, {"p": np.eye(2)[:1], "version": np.array([7, 7, 7])}]
    assert compare(before, before, rows=[2, 1]).rows == 3
    after = [dict(before[0], version=np.array([7, 7, 8])), before[1]]
    assert compare(before, after, rows=[2, 1]).agreement == pytest.approx((2 * 2 / 3 + 1) / 3)
    assert compare(one(y=5), one(y=6)).agreement == 0.0


def test_a_row_of_many_positions_agrees_in_part():
    before = np.zeros((1, 10, 3))
    before[..., 0] = 9.0  # logits of a class for each position
    after = before.copy()
    after[0, 0, 1] = 10.0
    assert compare(one(tags=before), one(tags=after)).agreement == pytest.approx(0.9)
    assert compare(one(ids=[[1, 2, 3, 4]]), one(ids=[[1, 2, 3, 5]])).agreement == 0.75


def test_of_many_probabilities_only_those_said_yes_to_count():
    notes = np.zeros((1, 50, 88), np.float32)
    notes[0, :4, 3] = 0.9
    lost = notes.copy()
    lost[0, 0, 3] = 0.4
    found = compare(one(notes=notes), one(notes=lost))
    assert (found.agreement, found.outputs[0].decision) == (0.75, "yes or no")
    tags = one(tags=[[0.1, 0.2, 0.05]])
    assert compare(tags, one(tags=[[0.2, 0.1, 0.05]])).agreement == 0.0


def test_embeddings_and_boxes_decide_nothing():
    unit = np.array([[0.6, 0.8], [0.8, -0.6]])
    flipped = unit[:, ::-1]
    assert compare(one(y=unit), one(y=flipped)).agreement == 1.0
    assert compare(one(embedding=unit * 3), one(embedding=flipped)).agreement == 1.0
    assert compare(one(y=unit * 3), one(y=flipped)).agreement == 0.0
    assert compare(one(z=np.array([1j, 2])), one(z=np.array([1j, 1]))).max_abs_diff == 1.0


def test_booleans_text_and_nothing():
    assert compare(one(b=[True, False]), one(b=[True, True])).agreement == 0.5
    texts = one(t=np.array([b"a\0", b"b"], object))
    assert compare(texts, one(t=np.array([b"a", b"b"], object))).agreement == 0.5
    for empty in (np.zeros((0, 3)), np.zeros((2, 0)), np.array([], object)):
        assert compare(one(e=empty), one(e=empty)).identical


def test_another_number_of_detections_is_no_error():
    found = compare(one(boxes=[[[1.0]] * 3], n=[3]), one(boxes=[[[1.0]] * 2], n=[2]))
    assert (found.agreement, found.identical) == (0.0, False)


def test_the_worst_output_is_named():
    before = one(a=[[3.0, 1.0]], b=[[3.0, 1.0]], c=[5.0])
    found = compare(before, one(a=[[3.1, 1.0]], b=[[1.0, 3.0]], c=[6.0]))
    assert found.worst.name == "b"
    assert {o.name: (o.agreement, o.decision) for o in found.outputs} == {
        "a": (1.0, "largest"),
        "b": (0.0, "largest"),
        "c": (1.0, "none"),
    }


def test_signatures_add_up():
    first = compare(one(p=[[0.2, 0.8]]), one(p=[[0.2, 0.8]]))
    second = compare(one(y=[1.0, 2.0]) + one(y=[4.0]), one(y=[1.0, 2.5]) + one(y=[4.0]))
    found = together([first, second])
    assert (found.rows, found.agreement, found.max_abs_diff) == (4, 1.0, 0.5)
    worse = compare(one(p=[[0.2, 0.8]]), one(p=[[0.8, 0.2]]))
    assert together([found, worse]).agreement == 0.0
    assert found.mean_abs_diff == pytest.approx(0.1)
    assert (together([first]).identical, found.identical) == (True, False)


@pytest.mark.parametrize("after", [one(q=[1.0]), one(p=[[1.0]])])
def test_other_outputs_cannot_be_compared(after):
    with pytest.raises(ValueError, match="became"):
        compare(one(p=[1.0]), after)
