"""`mlopsdeploy edge`: a model on a camera or on lines, here, with no network."""

import os

# What OpenCV, FFmpeg and Qt write on standard error past all settings of ours. They read these
# variables when they are loaded, so before any module of this package. A user's own value wins.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")

from mlopsdeploy.core import images as _images  # noqa: F401  # sets the most pixels likewise
