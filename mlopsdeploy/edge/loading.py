"""The model of a device's settings."""

from __future__ import annotations

from collections.abc import Callable

from mlopsdeploy.columns import Columns
from mlopsdeploy.config import EdgeSettings
from mlopsdeploy.edge.threads import tuned
from mlopsdeploy.model import Model, load_model


def load_edge(
    settings: EdgeSettings, sample: Callable[[Model], Columns], say: Callable[[str], None]
) -> tuple[Model, int]:
    """The model of the settings, with as many threads as they say or as run fastest; how many.

    Args:
        settings: of the device.
        sample: gives a row for the model, to measure with.
        say: told what takes long, in one line each.

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
            say=say,
        )

    if settings.threads:
        return with_threads(settings.threads), settings.threads
    return tuned(with_threads, sample, say)
