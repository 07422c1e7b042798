"""A routine around the census model of `servegraph run`: takes a form as people fill it in, answers in words.

The graph knows the sixteen educations of its training data: of any other text it says what it says of unknown words,
without an error.
"""

from servegraph.errors import RequestError
from servegraph.serve.saved_model_predictor import SavedModelPredictor

# What people write, in small letters: the word of the training data, and its number there.
EDUCATIONS = {
    "high school": ("HS-grad", 9),
    "some college": ("Some-college", 10),
    "bachelor's degree": ("Bachelors", 13),
    "master's degree": ("Masters", 14),
    "phd": ("Doctorate", 16),
}
LEFT_EMPTY = {"capital_gain": 0, "capital_loss": 0, "hours_per_week": 40, "workclass": "?", "occupation": "?"}


class CensusRoutine(SavedModelPredictor):
    """`{"instances": [{"age": 44, "education": "PhD", …}]}` -> `{"predictions": [{"income": …, "probability": …}]}`."""

    def preprocess(self, prediction_input):
        """Fill in what was left empty, and say the education as the training data does."""
        rows = []
        for form in prediction_input["instances"]:
            said = form["education"].strip().lower()
            if said not in EDUCATIONS:
                raise RequestError(f"There is no education {said!r}.", fix=f"Write one of {', '.join(EDUCATIONS)}.")
            word, years = EDUCATIONS[said]
            rows.append({**LEFT_EMPTY, **form, "education": word, "education_num": years})
        return super().preprocess({"instances": rows})

    def postprocess(self, prediction_results):
        """Say the more probable class and its probability."""
        rows = super().postprocess(prediction_results)["predictions"]
        return {"predictions": [{"income": r["classes"], "probability": max(r["probabilities"])} for r in rows]}
