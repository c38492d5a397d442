"""What the address of a camera says: whether it is live, and what of it may be shown.

rtsp://, rtmp://, udp://, tcp://, srt://, rtp://    live, whatever the path looks like
http://…/clip.mp4                                   a file on a server
http://…/list.m3u8, list.m3u8                       live unless the list says where it ends
http://…                                            live, as motion JPEG is
/dev/…, a FIFO                                      live
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "rtp", "srt")
WEB = ("http", "https")
PLAYLISTS = (".m3u8", ".m3u")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".ts", ".flv")
PATIENCE = 5.0  # seconds for a playlist
LONGEST = 1 << 20  # bytes of a playlist

# Parts of an address that say what is wanted of a camera, and nothing secret.
_HARMLESS = frozenset({
    "camera", "channel", "codec", "compression", "fps", "h", "height", "inst", "mode", "profile",
    "proto", "resolution", "stream", "streamtype", "subtype", "transport", "transportmode",
    "unicast", "videocodec", "w", "width",
})  # fmt: skip
# Up to what ends a value: `&`, or an underscore before the next name (`user=me_password=x_port=`).
_PAIR = re.compile(
    r"([A-Za-z][\w.-]*?)(=|%3[Dd])((?:(?!_[A-Za-z]+(?:=|%3[Dd])|%26|%3[Bb])[^&;/?#])*)"
)
# Letters and digits mixed, as no name is: a token that stands for a password.
_TOKEN = re.compile(r"(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}")


def redacted(address: str) -> str:
    """An address as a terminal, an event, a page or a log may have it: without what is secret.

    Secret are a password, a user with none, each value of a query or a path (`?token=…`,
    `user=…_password=…`) whose name is not known to be harmless, tokens within a path, and the key
    of an RTMP stream.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    account, host = _split_account(rest)
    place, question, query = host.partition("?")
    host, slash, path = place.partition("/")
    parts = [_without_values(part) for part in path.split("/")]
    parts = [_TOKEN.sub("***", part) for part in parts]
    if scheme.lower() in ("rtmp", "rtmps") and len(parts) > 1:
        parts[-1] = "***"
    pairs = [_shown_pair(pair) for pair in re.split("[&;]", query.partition("#")[0])]
    hidden = f"{account.partition(':')[0]}:***@" if ":" in account else "***@" * bool(account)
    asked = f"?{'&'.join(pairs)}" if question else ""
    return f"{scheme}://{hidden}{host}{slash}{'/'.join(parts)}{asked}"


def has_secret(address: str) -> bool:
    """Whether there is something in it that `redacted` leaves out."""
    return "***" in redacted(address)


def without_secret(address: str) -> str:
    """An address that leads to the same host: no password, no query, no path with a key in it."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    account, host = _split_account(rest)
    user = f"{account.partition(':')[0]}@" if ":" in account else ""
    place = re.split("[?#]", host)[0]
    if has_secret(f"{scheme}://{place}"):
        place = place.partition("/")[0] + "/"
    return f"{scheme}://{user}{place}"


def is_live(address: str) -> bool:
    """Whether frames go by, whether anybody looks or not.

    A playlist is read for that; one that can't be is taken for live, as it may come.
    """
    scheme, mark, _ = address.partition("://")
    if not mark:
        return is_device(address) or _is_open_playlist(address)
    path = urlsplit(address).path.lower()
    if scheme.lower() in STREAMS:
        return True
    if path.endswith(PLAYLISTS):
        return not _ends(address)
    return not path.endswith(VIDEOS)


def is_device(address: str) -> bool:
    """Whether a path is that of a device or a FIFO; one in /dev that is not there may come."""
    try:
        mode = Path(address).stat().st_mode
    except OSError:
        return bool(re.match(r"/dev/(?!shm/|fd/)", address))
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def with_account(address: str) -> tuple[str, str]:
    """A web address without user and password, and these as `user:password`."""
    scheme, _, rest = address.partition("://")
    account, host = _split_account(rest)
    return f"{scheme.lower()}://{host}", unquote(account)


def _split_account(rest: str) -> tuple[str, str]:
    """`me:pa/ss@host/x` -> `me:pa/ss`, `host/x`: an unescaped slash may stand in a password."""
    head, slash, path = rest.partition("/")
    if "@" in head:
        account, _, host = head.rpartition("@")
        return account, host + slash + path
    if "@" in path and re.match(r"[^/:@\[\]]+:(?!\d*(?:/|$))", rest):
        account, _, host = rest.rpartition("@")
        return account, host
    return "", rest


def _shown_pair(pair: str) -> str:
    name = unquote(pair.partition("=")[0])
    if not pair or name.lower() in _HARMLESS:
        return pair
    return f"{name}=***" if "=" in pair else "***"


def _without_values(part: str) -> str:
    def hidden(found: re.Match[str]) -> str:
        return found[0] if found[1].lower() in _HARMLESS else f"{found[1]}{found[2]}***"

    return _PAIR.sub(hidden, part)


# ---------------------------------------------------------------- playlists


def _is_open_playlist(path: str) -> bool:
    return path.lower().endswith(PLAYLISTS) and Path(path).is_file() and not _ends(path)


def _ends(address: str, depth: int = 2) -> bool:
    """Whether a playlist says where it ends: by itself, or of several qualities the first one."""
    try:
        text = _read(address)
    except (OSError, ValueError):
        return False
    lines = [line.strip() for line in text.splitlines()]
    if any(line == "#EXT-X-ENDLIST" for line in lines) or "#EXTM3U" not in text[:16]:
        return True
    if depth and any(line.startswith("#EXT-X-STREAM-INF") for line in lines):
        first = next((line for line in lines if line and not line.startswith("#")), "")
        inner = urljoin(address, first) if "://" in address else str(Path(address).parent / first)
        return bool(first) and _ends(inner, depth - 1)
    return False


def _read(address: str) -> str:
    if "://" not in address:
        with Path(address).open("rb") as file:
            return file.read(LONGEST).decode("utf-8", "replace")
    from urllib.request import urlopen  # only for playlists

    with urlopen(request_for(address), timeout=PATIENCE) as answer:  # noqa: S310
        return str(answer.read(LONGEST).decode("utf-8", "replace"))


def request_for(address: str):  # type: ignore[no-untyped-def]  # of urllib, which loads late
    """A request for a web address, with its user and password where it has them."""
    from base64 import b64encode
    from urllib.request import Request

    url, account = with_account(address)
    head = {"Authorization": f"Basic {b64encode(account.encode()).decode()}"} if account else {}
    return Request(url, headers=head)  # noqa: S310
