"""Pictures in, several answers out: an age and a mood."""

from mlopsdeploy.tasks.image_classification import ImageTask
from mlopsdeploy.tasks.multi_output import SeveralAnswers


class ImageMultiOutput(SeveralAnswers, ImageTask):
    """BGR pictures before, several answers after; see `SeveralAnswers`."""
