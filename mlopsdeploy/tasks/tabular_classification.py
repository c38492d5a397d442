"""Rows of a table in, label and score out: churn, fraud, default.

Takes what the usual converters write: scikit-learn, XGBoost and LightGBM (a label and
probabilities, as an array or as ZipMap dicts), Keras and PyTorch (one sigmoid, several, a softmax,
or logits of several classes).
"""

from mlopsdeploy.tasks.classes import Classes
from mlopsdeploy.tasks.table import TableTask


class TabularClassification(TableTask):
    """Features by name before, labels after; see `Classes`."""

    head = Classes
