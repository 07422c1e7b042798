"""The images the components run in, bound to the package's version: the only place that names them.

Every name contains `python`, because kfp.local's SubprocessRunner warns about images that do not
(kfp 2.17, `SubprocessTaskHandler.validate_image`).
"""

from __future__ import annotations

from servegraph import __version__

REGISTRY = "docker.io/servegraph"

TENSORFLOW = f"{REGISTRY}/python-tensorflow:{__version__}"  # all that needs TensorFlow: the extra train
SLIM = f"{REGISTRY}/python-slim:{__version__}"  # all other steps: the extra cloud
ESTIMATOR = f"{REGISTRY}/python-estimator:{__version__}"  # Estimators: 2.15 beside the above
SERVING = f"{REGISTRY}/python-serving:{__version__}"  # the prediction server: the extra serve
