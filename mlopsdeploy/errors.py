"""What can go wrong, as far as a user can do something about it.

    MlopsDeployError      failed while running (exit code 1)
    ├── ConfigError       a flag, a variable or a YAML key is wrong (2)
    ├── InputError        the data are not what they should be (2)
    └── ModelError        the model is not there or can't be used (2)

The message is one line: what is wrong, where, and what to do. The command line shows it as it
stands and exits with `exit_code`. Anything else that is raised is a bug of ours and keeps its
traceback.
"""


class MlopsDeployError(Exception):
    """A failure that a user can understand and act on."""

    exit_code = 1


class ConfigError(MlopsDeployError):
    """A setting is unknown or has a wrong value."""

    exit_code = 2


class InputError(MlopsDeployError):
    """The input can't be read, or lacks what the model needs."""

    exit_code = 2


class ModelError(MlopsDeployError):
    """The model can't be found, read, or run by the runtime asked for."""

    exit_code = 2


class Stopped(SystemExit):
    """A signal ended the process; `kept` says what is left of its work."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.kept = "nothing was written"
