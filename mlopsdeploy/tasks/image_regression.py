"""Pictures in, numbers out: an age, a count, a quality."""

from mlopsdeploy.tasks.image_classification import ImageTask
from mlopsdeploy.tasks.values import Values


class ImageRegression(ImageTask):
    """BGR pictures before, values after; see `Values`."""

    head = Values
