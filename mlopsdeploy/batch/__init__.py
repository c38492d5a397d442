"""Score a file: from files to files, as fast as the machine allows.

`run` in `job.py` is the strategy; `sources` and `sinks` are its two ends.
"""
