"""`mlopsdeploy choose`: which of the three ways fits, from answers and measurements."""
