"""Rows of a table in, the nearest of several clusters out."""

from mlopsdeploy.tasks.clusters import Clusters
from mlopsdeploy.tasks.table import TableTask


class Clustering(TableTask):
    """Features by name before, a cluster and the distance from it after; see `Clusters`."""

    head = Clusters
