"""Outputs of `edge`, a file each, found by name: an entry point of `mlopsdeploy.sinks`.

Ours have a setting of that name, those of outside packages are named with `--sink NAME=VALUE`. One
is a `Sink` (see `outputs`), which writes here, or a `Destination` (see `sending`), to which a
network leads, and which is fed from the outbox.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlopsdeploy.core import plugins
from mlopsdeploy.edge.events import Report
from mlopsdeploy.edge.outbox import Outbox
from mlopsdeploy.edge.outputs import About, Sink
from mlopsdeploy.edge.sending import Destination, Outgoing
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import EdgeSettings

OWN = ("preview", "events", "snapshots", "save", "mqtt", "webhook")
FOR_DESTINATIONS = ("outbox", "outbox_limit", "outbox_age", "send", "device")


def open_sinks(about: About, report: Report) -> Iterator[Sink]:
    """The sinks that the settings name, each opened as it is asked for.

    Args:
        about: the run.
        report: gets what happens to destinations.

    Raises:
        ConfigError: there is none of a name, or it can't be opened.
    """
    settings, destinations = about.settings, []
    for kind, value in named(settings):
        one = kind.opened(value, about)
        if isinstance(one, Destination):
            destinations.append(one)
        else:
            yield one
    if destinations:
        outbox = Outbox(
            settings.outbox, [one.name for one in destinations],
            limit=settings.outbox_limit, age=settings.outbox_age, log=about.log,
        )  # fmt: skip
        send = settings.send or ("all" if about.model.task.data == "text" else "changes")
        yield Outgoing(about, destinations, outbox, report, everything=send == "all")


def named(settings: EdgeSettings) -> Iterator[tuple[type[Sink] | type[Destination], str]]:
    """The classes of the outputs that settings name, and what each is opened with.

    Raises:
        ConfigError: there is none of a name, or it needs a package that is not there.
    """
    found = [(name, value) for name in OWN if (value := getattr(settings, name)) is not None]
    for one in settings.sinks:
        name, _, value = one.partition("=")
        if name in OWN:
            raise ConfigError(f"--sink {name}: has a setting of its own, --{name}")
        found.append((name, value))
    for name, value in found:
        yield plugins.load("sinks", name), value


def check_sinks(settings: EdgeSettings) -> bool:
    """See that all outputs can be had; whether there is one that a network leads to.

    Raises:
        ConfigError: see `named`; or settings are of such an output, and there is none.
    """
    kinds = [kind for kind, _ in named(settings)]
    sends = any(issubclass(kind, Destination) for kind in kinds)
    given = [name for name in FOR_DESTINATIONS if name in settings.given]
    if given and not sends:
        flag = given[0].replace("_", "-")
        raise ConfigError(
            f"--{flag} is of events that are sent; say where to with --mqtt or --webhook"
        )
    for name, of in (("home_assistant", "mqtt"), ("webhook_token", "webhook")):
        if name in settings.given and getattr(settings, of) is None:
            raise ConfigError(f"--{name.replace('_', '-')} is of --{of}; name one")
    return sends
