"""Rows of a table in, numbers out: a price, a demand, a time to failure."""

from mlopsdeploy.tasks.table import TableTask
from mlopsdeploy.tasks.values import Values


class TabularRegression(TableTask):
    """Features by name before, values after; see `Values`."""

    head = Values
