"""`mlopsdeploy edge --lines`: a model on lines of text or of a sensor. Needs no OpenCV."""
