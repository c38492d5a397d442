"""`--dry-run`: what a run would take, measured on a sample of its rows. Nothing is written.

The windows of the sample lie spread over the input, since files are often sorted. They are
parsed, encoded and planned as the run would do it; of the planned batches some, from the shortest
rows to the longest, are computed on all streams at once. That is done once for each precision, in
a process of its own, so that memory is that of a run, and the alternatives don't mix.
"""

from mlopsdeploy.batch.dry_run.forecast import estimate, loader
from mlopsdeploy.batch.dry_run.table import show

__all__ = ["estimate", "loader", "show"]
