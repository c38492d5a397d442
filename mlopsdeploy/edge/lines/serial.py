"""Serial devices, as far as reading lines from one takes: raw mode and a speed.

The standard library's termios does it on Linux and macOS, so pyserial is not needed. Tried on
pseudo-terminals, which are all of a serial device but the wire.
"""

from __future__ import annotations

import os
import re

from mlopsdeploy.errors import ConfigError, InputError

try:
    import termios
    import tty
except ModuleNotFoundError:  # Windows, where nothing is serial to us
    termios = None  # type: ignore[assignment]


def is_serial(path: str) -> bool:
    """Whether a character device is a terminal line. Does not wait for a carrier."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return path.startswith("/dev/tty")  # one that is busy; opening it will tell
    try:
        return os.isatty(fd)
    finally:
        os.close(fd)


def open_serial(path: str, baud: int | None) -> int:
    """The device, ready to be read: bytes as they come, no echo, no modem signals.

    Args:
        path: such as /dev/ttyUSB0.
        baud: bits per second; None leaves it as it is set.

    Raises:
        InputError: it can't be opened.
        ConfigError: it has no such speed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}{group_hint(path)}") from error
    try:
        tty.setraw(fd, termios.TCSANOW)
        settings = termios.tcgetattr(fd)
        settings[2] |= termios.CLOCAL | termios.CREAD
        if baud is not None:
            settings[4] = settings[5] = _code(baud)
        termios.tcsetattr(fd, termios.TCSANOW, settings)
    except termios.error as error:
        os.close(fd)
        raise InputError(
            f"{path}: can't be set up as a serial device ({error.args[-1]})"
        ) from error
    except ConfigError:
        os.close(fd)
        raise
    return fd


def speed_of(fd: int) -> int:
    """Bits per second that a device is set to."""
    code = termios.tcgetattr(fd)[4]
    return next((baud for baud, known in _speeds().items() if known == code), 0)


def group_hint(path: str) -> str:
    """How a user gets the right to open a serial device."""
    if not path.startswith("/dev/") or os.access(path, os.R_OK) or not os.path.exists(path):  # noqa: PTH110
        return ""
    return "; 'sudo usermod -aG dialout $USER' and a new login give it"


def _code(baud: int) -> int:
    speeds = _speeds()
    if baud not in speeds:
        known = ", ".join(map(str, sorted(speeds)))
        raise ConfigError(f"--baud {baud}: there are {known}")
    return speeds[baud]


def _speeds() -> dict[int, int]:
    names = (re.fullmatch(r"B([1-9]\d*)", name) for name in dir(termios))
    return {int(name[1]): getattr(termios, name[0]) for name in names if name}
