"""The model of a device's settings."""

from __future__ import annotations

from collections.abc import Callable

from mlopsdeploy.columns import Columns
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.threads import tuned
from mlopsdeploy.settings import EdgeSettings


def load_edge(
    settings: EdgeSettings, sample: Callable[[Model], Columns], log: Callable[[str], None]
) -> tuple[Model, int]:
    """The model of the settings, with as many threads as they say or as run fastest; how many.

    Args:
        settings: of the device.
        sample: gives a row for the model, to measure with.
        log: called with a line about each slow step.

    Raises:
        MlopsDeployError: see `load_model`.
    """

    def with_threads(threads: int) -> Model:
        return load_model(
            settings.model,
            runtime=settings.runtime,
            precision=settings.precision,
            threads=threads,
            threshold=settings.threshold,
            features=settings.features,
            long_text=settings.long_text,
            streams=1,
            digest=settings.digest,
            trust_model=settings.trust_model,
            log=log,
        )

    if settings.threads:
        return with_threads(settings.threads), settings.threads
    return tuned(with_threads, sample, log)
