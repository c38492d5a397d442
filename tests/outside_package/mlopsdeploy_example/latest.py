"""A sink: the newest result alone, in a file that is always whole."""

import json
from pathlib import Path

from mlopsdeploy.edge.outputs import Sink
from mlopsdeploy.errors import ConfigError


class Latest(Sink):
    """`--sink latest=FILE`."""

    name = "latest"

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise ConfigError(f"--sink latest={path}: there is no folder {self.path.parent}")

    @classmethod
    def opened(cls, value, about):
        return cls(value)

    def pick(self, result):
        """A line or a frame as an event; of lines that came together the last."""
        return result.documents()[-1]

    def write(self, item):
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(item), "utf-8")
        part.replace(self.path)
