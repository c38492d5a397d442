"""Object stores and other machines, through fsspec: read, written whole, listed.

Credentials are the library's business: `AWS_*` variables and `~/.aws` for s3://, Google's
application default credentials for gs://. So are retries, of which s3fs and gcsfs do some.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mlopsdeploy.data.addresses import scheme, shown, without_secrets
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError

try:
    import fsspec
except ModuleNotFoundError as missing:
    raise ConfigError(
        "an object store needs the package 'fsspec': pip install 'mlopsdeploy[s3]' (or [gs])"
    ) from missing

_WEB = {"http", "https"}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_BLOCK = 4 << 20
# Parquet and zips are read here and there, the rest from its start to its end.
_HERE_AND_THERE = {"cache_type": "blockcache", "cache_options": {"maxblocks": 16}}
_STREAM = {"cache_type": "readahead"}
_TYPES = {
    ".bz2": "application/x-bzip2",
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".tsv": "text/tab-separated-values",
    ".xz": "application/x-xz",
    ".zst": "application/zstd",
}
_TYPE_ARGUMENT = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type"}
_SHOWS_HALF = {"ftp", "hdfs", "sftp", "webhdfs"}  # a file is seen there while it is written


def open_remote(url: str) -> IO[bytes]:
    """Open an object for reading. It is fetched in blocks, in 64 MiB of memory at most.

    Seekable, where the server can give a part of it (web servers may not).

    Raises:
        InputError: it isn't there, or may not be read.
        MlopsDeployError: the store can't be reached, also later while reading.
        ConfigError: a package is missing.
    """
    with _store(url) as (files, path):
        jumps = path.lower().endswith((".parquet", ".pq", ".zip"))
        how = _HERE_AND_THERE if jumps else _STREAM
        opened = files.open(path, "rb", block_size=_BLOCK, **how)
    return io.BufferedReader(_Remote(opened, url), 1 << 20)


def expand(url: str) -> list[str]:
    """The objects that a name, a pattern (`*`, `?`, `[…]`, `**`) or a folder stands for, sorted.

    Of a folder, all that is in it but names that start with "_" or "." (`_SUCCESS`). Web servers
    have no folders: their addresses stand for themselves.

    Raises:
        InputError: there is none.
        MlopsDeployError: the store can't be reached.
    """
    if scheme(url) in _WEB:
        return [url]
    with _store(url) as (files, path):
        files.invalidate_cache()
        if re.search(r"[*?\[]", path):
            found = [name for name in files.glob(path) if not files.isdir(name)]
        elif files.isfile(path):
            found = [path]
        else:
            folder = path.rstrip("/")
            found = [
                name
                for name in files.find(path)
                if name.startswith(folder)
                and not re.search(r"/[_.]", name.removeprefix(folder))
                and name[-1] != "/"
            ]
        names = sorted(files.unstrip_protocol(name) for name in found)
    if not names:
        raise InputError(f"{shown(url)}: there is nothing of that name")
    return names


def signature(url: str) -> str:
    """What changes when the object does: its size, and its ETag or time; "" where there is none.

    Raises:
        InputError: it may not be read.
        MlopsDeployError: the store can't be reached.
    """
    with _store(url) as (files, path):
        files.invalidate_cache()
        try:
            about = files.info(path)
        except FileNotFoundError:
            return ""
    if about.get("type") == "directory":
        return ""
    marks = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    mark = next((about[name] for name in marks if about.get(name)), "")
    return f"{about.get('size')}-{mark}".replace('"', "")


def stands_for(reference: str, url: str) -> bool:
    """Whether a name, pattern or folder stands for an object, however both are spelled.

    Raises:
        InputError: the name stands for nothing.
        MlopsDeployError: the store can't be reached.
    """
    with _store(url) as (files, path):
        for name in expand(reference):
            with _store(name) as (others, other):
                if type(others) is type(files) and other.strip("/") == path.strip("/"):
                    return True
    return False


def check_upload(url: str) -> None:
    """Find out before the work whether the store is there and knows us. Writes nothing.

    Whether writing is allowed, only writing shows.

    Raises:
        ConfigError: it is a web server, or a package is missing.
        InputError: there is no such bucket, or no credentials.
        MlopsDeployError: the store can't be reached.
    """
    may_not_list = contextlib.suppress(PermissionError)  # and yet be allowed to write
    with _store(url, output=True) as (files, path), may_not_list:
        files.ls(path.lstrip("/").partition("/")[0])


def upload(local: Path, url: str) -> None:
    """Copy a file there; it appears whole or not at all.

    Raises:
        ConfigError: it is a web server, or a package is missing.
        InputError: there is no such bucket, no credentials, or no permission.
        MlopsDeployError: the store can't be reached, or failed.
    """
    kind = scheme(url)
    type_ = _TYPES.get(Path(url).suffix.lower())
    argument = _TYPE_ARGUMENT.get(kind)
    with _store(url, output=True) as (files, path):
        target = f"{path}.part" if kind in _SHOWS_HALF else path
        files.put_file(str(local), target, **({argument: type_} if argument and type_ else {}))
        if target != path:
            files.mv(target, path)
        files.invalidate_cache()
        size = files.info(path)["size"]
    if size != local.stat().st_size:
        raise MlopsDeployError(
            f"{shown(url)}: {size} bytes of {local.stat().st_size} arrived; run it again"
        )


class _Remote(io.RawIOBase):
    """A file of fsspec whose errors are ours."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with _readable_errors(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


# By the name of the error, for the packages that define them are not always there.
_MEANINGS: list[tuple[str, type[MlopsDeployError], str]] = [
    ("NoCredentials|DefaultCredentials|PartialCredentials|ProfileNotFound", InputError,
     "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, or Google's "
     "application default credentials"),
    ("FileNotFoundError|NoSuchBucket|NoSuchKey", InputError, "there is nothing of that name"),
    ("PermissionError|Forbidden", InputError,
     "access denied; check the credentials and what they are allowed to do"),
    ("Endpoint|Connect|Timeout|gaierror|Resolve|ServerDisconnected", MlopsDeployError,
     "can't be reached; check the network and the endpoint, and run it again"),
    ("FileExpired|PreconditionFailed", MlopsDeployError,
     "was changed while it was read; run it again"),
]  # fmt: skip


@contextlib.contextmanager
def _readable_errors(url: str) -> Iterator[None]:
    """Turn the many errors of many libraries into one line, with no secret in it."""
    try:
        yield
    except Exception as error:
        ours = {AssertionError, AttributeError, KeyError, TypeError}  # mistakes
        if isinstance(error, MlopsDeployError) or type(error) in ours:
            raise
        chain: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            chain += [kind.__name__ for kind in type(cause).__mro__]
            cause = cause.__cause__
        for pattern, kind, advice in _MEANINGS:
            if re.search(pattern, " ".join(chain)):
                raise kind(f"{shown(url)}: {advice}") from error
        line = " ".join(str(error).partition("\n")[0].split()) or type(error).__name__
        raise MlopsDeployError(f"{shown(url)}: {without_secrets(line, url)}") from error


@contextlib.contextmanager
def _store(url: str, *, output: bool = False) -> Iterator[tuple[Any, str]]:
    """The file system and the path that a URL stands for, with errors that are ours."""
    if output and scheme(url) in _WEB:
        raise ConfigError(f"{shown(url)}: a web server can't be an output")
    with _readable_errors(url):
        try:
            files, path = fsspec.url_to_fs(url)
        except ImportError as error:
            kind = scheme(url)
            extra = _EXTRAS.get(kind)
            what = f"mlopsdeploy[{extra}]" if extra else f"fsspec[{kind.rstrip('s')}]"
            raise ConfigError(f"{shown(url)}: needs a package: pip install '{what}'") from error
        yield files, path
