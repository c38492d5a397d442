"""The order of a picture's channels, by what is taken off each."""

import numpy as np

from mlopsdeploy.columns import Array

_CAFFE = np.array([103.939, 116.779, 123.68])  # the means of ImageNet's blue, green and red


def color_of(means: Array) -> str:
    """The order, "bgr", if these are the means of such channels, of 0 to 255 or of 0 to 1."""
    of_pixels = means * (255 if np.max(means) <= 1 else 1)
    rises = of_pixels.shape == (3,) and bool(np.all(np.diff(of_pixels) > 0))
    return "bgr" if rises and np.allclose(of_pixels, _CAFFE, rtol=0.03) else ""
