"""What can go wrong, as far as a user can do something about it.

    MlopsDeployError      failed while running (exit code 1)
    ├── ConfigError       a flag, a variable or a YAML key is wrong (2)
    ├── InputError        the data are not what they should be (2)
    │   └── RowError      a row that the model can't take
    └── ModelError        the model is not there or can't be used (2)
        └── DoubtError    its files can be read in two ways, and nobody says which

The message is one line: what is wrong, where, and what to do. The command line shows it as it
stands and exits with `exit_code`. Anything else that is raised is a bug of ours and keeps its
traceback.
"""

import gc
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager


class MlopsDeployError(Exception):
    """A failure that a user can understand and act on."""

    exit_code = 1


class ConfigError(MlopsDeployError):
    """A setting is unknown or has a wrong value."""

    exit_code = 2


class InputError(MlopsDeployError):
    """The input can't be read, or lacks what the model needs."""

    exit_code = 2


class RowError(InputError):
    """A row that the model can't take.

    The one error after which a caller goes on with the other rows: `batch` sets the row aside,
    `edge` reports an unreadable line or frame, `serve` answers 422.

    Args:
        message: why, as one line.
        rows: the places of such rows among those of the call, where they are known.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class ModelError(MlopsDeployError):
    """The model can't be found, read, or run by the runtime asked for."""

    exit_code = 2


class DoubtError(ModelError):
    """A model's files can be read in several ways, and which one is meant is not for us to guess.

    Args:
        name: the model's.
        what: what isn't known.
        readings: each way to read it: the lines of YAML that choose it, and what it means.
    """

    def __init__(self, name: str, what: str, readings: Sequence[tuple[str, str]]) -> None:
        ways = [f"{meaning} ({yaml})" for yaml, meaning in readings]
        either = ", ".join(ways[:-1]) + f" or {ways[-1]}"
        super().__init__(f"{name}: {what}: {either}; say which in a YAML beside the model")
        self.what = what
        self.readings = tuple(readings)


class Stopped(SystemExit):
    """A signal ended the process; `kept` says what is left of its work."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.kept = "nothing was written"


WRITTEN = "the output is written"


@contextmanager
def after_writing() -> Iterator[None]:
    """Around what a run does when its output is there: a signal takes nothing back."""
    try:
        yield
    except Stopped as stopped:
        stopped.kept = WRITTEN
        raise


def one_line(error: BaseException, *, last: bool = False) -> str:
    """What a library says went wrong, in words up to 200 characters, or else the error's class.

    All its lines in a row, or with `last` the last that isn't empty, where the cause stands there.
    """
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return shortened(lines[-1] if last and lines else " ".join(lines)) or type(error).__name__


def shortened(text: str, most: int = 200) -> str:
    """A text of so many characters at most, cut between two words."""
    if len(text) <= most:
        return text
    kept = text[: most - 1]
    return f"{kept.rpartition(' ')[0] or kept} …"[:most]


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Around imports that `what` needs the packages of an extra for: a missing one is a line.

    What is imported stays, so it isn't searched for garbage meanwhile, a tenth of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "mlopsdeploy").startswith("mlopsdeploy"):
            raise  # a mistake of ours
        raise ConfigError(
            f"{what} needs the package {error.name!r}: pip install 'mlopsdeploy[{extra}]'"
        ) from error
    finally:
        if collects:
            gc.enable()


def did_you_mean(name: str, known: Collection[str], otherwise: str = "there are") -> str:
    """A hint on a name that nobody knows: the one most like it, else all that there are."""
    import difflib  # only for who makes a mistake

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise}: {', '.join(known)}"
