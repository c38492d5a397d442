"""What may be overwritten: an output that a run of ours wrote, and nothing else.

    the input               never: the file, one of a folder or pattern, the table, the object
    the model               never: its files, its YAML and labels, all that is in its folder
    something else          only if we wrote it and nobody has changed it since, or with --overwrite

A path is compared by what it leads to, so `..`, links, and spellings that a file system takes for
one make no difference. We know what we wrote by

- a note beside it, `OUTPUT.manifest.json`, that says under "written" how each output was left: a
  file's size and time, the names, sizes and times of a folder's files, an object's size and tag, a
  table's columns. That of a table or an object lies in the folder of the run;
- the name of its generator in a page of HTML;
- the form of its first line in a file of events, which may be cut off at any moment.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mlopsdeploy import __version__
from mlopsdeploy.core.references import several
from mlopsdeploy.core.yaml_files import read_yaml
from mlopsdeploy.data.addresses import is_database, is_remote, split_table
from mlopsdeploy.data.files import note_of
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files.cache import cache_folder
from mlopsdeploy.model_files.digest import parts_of
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.model_files.tflite_metadata import find_labels

GENERATOR = '<meta name="generator" content="mlopsdeploy'


@dataclass(frozen=True)
class Protected:
    """What the outputs of a command must leave alone.

    Attributes:
        inputs: files, folders, patterns; addresses that are no local path are left to their owner.
        models: references to models.
        overwrite: replace what exists, whoever wrote it, unless it is one of these.
        query: what is asked of an input that is a database.
    """

    inputs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    overwrite: bool = False
    query: str | None = None

    def check(
        self,
        output: str | Path,
        shown: str,
        *,
        ours: bool | None = None,
        appends: bool = False,
        folder: bool = False,
    ) -> None:
        """Refuse an output before anything is written.

        Args:
            output: the path of a file or folder.
            shown: what a message calls it, with its flag: `--save out.mp4`.
            ours: whether we wrote what is there; by default that is looked up.
            appends: what is there stays, so that it may be anybody's; a device will do, too.
            folder: a folder is written, and not a file.

        Raises:
            ConfigError: it is, holds or belongs to an input or a model, is something else than a
                file or folder, or was not written by us.
        """
        target = Path(output)
        if not target.exists():
            return
        ours = wrote(target) if ours is None else ours
        for path in self.inputs:
            _check_input(target, path, shown, ours=ours, may_hold=appends)
        for reference in chain(*(several(one) or [one] for one in self.models)):
            if _belongs_to_model(target, reference, ours=ours):
                raise ConfigError(f"{shown}: belongs to the model {reference}; name another")
        if appends:
            return
        if problem := _unfit(target, folder=folder):
            raise ConfigError(f"{shown}: {problem}")
        self.check_written(shown, ours)

    def check_written(self, shown: str, ours: bool) -> None:
        """Refuse to replace what is there, unless it is ours or `--overwrite` is given.

        Raises:
            ConfigError: it is somebody else's.
        """
        if not (ours or self.overwrite):
            raise ConfigError(
                f"{shown}: is there already, and not as mlopsdeploy has written it; name another, "
                "or say --overwrite"
            )


def _unfit(target: Path, *, folder: bool) -> str:
    """Why what exists can be replaced by no file or `folder`; "" where it can."""
    if not folder and target.is_dir():
        return "is a folder; name a file"
    if folder and not target.is_dir():
        return "is a file; name a folder, or one that is not there yet"
    if not (target.is_file() or target.is_dir()):
        return "is no regular file"
    if is_mount_point(target):
        return "is a mount point, which can't be replaced as a whole; name something in it"
    return ""


def wrote(path: Path) -> bool:
    """Whether what is there is what we wrote, by its note or by what is in it."""
    if path.is_dir() and not any(path.iterdir()):
        return True
    if written(note_of(path)).get(path.name, "") in (state_of(path), _identity(path)):
        return True
    return path.is_file() and _looks_like_ours(path)


def written(note: Path) -> Mapping[str, Any]:
    """What a note says of how outputs were left, by their names."""
    try:
        known = json.loads(note.read_bytes())["written"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known if isinstance(known, dict) else {}


def write_note(output: Path, *, finished: bool = True) -> None:
    """Note that we wrote a file or, not `finished`, that we are writing it.

    Raises:
        OSError: the note can't be written.
    """
    state = state_of(output) if finished else _identity(output)
    note = {"mlopsdeploy": __version__, "written": {output.name: state}}
    note_of(output).write_text(json.dumps(note, indent=1), "utf-8")


def state_of(path: Path) -> str:
    """What changes when a file or anything in a folder does; "" where there is nothing."""
    try:
        if not path.is_dir():
            about = path.stat()
            return f"{about.st_size} bytes, {about.st_mtime_ns}"
    except OSError:
        return ""
    files = sorted(file for file in path.rglob("*") if not file.is_dir())
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path).as_posix()}\n{state_of(file)}\n".encode())
    return f"{len(files)} files, {total.hexdigest()}"


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted there; a file can be one, too."""
    place = path.resolve()
    if place.is_mount():
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:  # not Linux
        return False
    escaped = str(place).replace("\\", r"\134").replace(" ", r"\040")
    return any(line.split(" ", 5)[4] == escaped for line in mounts.splitlines())


def _identity(path: Path) -> str:
    try:
        return f"inode {path.stat().st_ino}"
    except OSError:
        return ""


def _looks_like_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    if path.suffix.lower() in (".html", ".htm"):
        return GENERATOR.encode() in start
    try:
        first = json.loads(start.partition(b"\n")[0])
    except ValueError:
        return False
    return isinstance(first, dict) and first.keys() >= {"event", "time"}


def _check_input(target: Path, path: str, shown: str, *, ours: bool, may_hold: bool) -> None:
    there = target.stat()
    if path == "-":
        if os.path.samestat(there, os.fstat(0)):
            raise ConfigError(f"{shown}: is the input itself; give another")
        return
    for file in _files_of(path):
        if os.path.samestat(there, file.stat()):
            itself = not glob.has_magic(path) and file == Path(path).expanduser()
            if ours and not itself and target.is_file():
                continue  # in a folder of inputs our output is none of them
            what = "the input itself" if itself else "one of the inputs"
            raise ConfigError(f"{shown}: is {what}; give another")
        if not may_hold and target.is_dir() and _is_within(file, target):
            raise ConfigError(f"{shown}: holds the input {path}; give another")


def _files_of(path: str) -> Iterator[Path]:
    """The files and folders that an input stands for."""
    if is_database(path):
        path = split_table(path)[0].partition(":///")[2]
    if not path or is_remote(path):
        return
    place = Path(path).expanduser()
    if place.exists():
        yield place
        if place.is_dir():
            yield from (file for file in place.iterdir() if file.is_file())
    elif glob.has_magic(path):
        found = glob.glob(path, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute ones
        yield from filter(Path.exists, map(Path, found))


def _belongs_to_model(target: Path, reference: str, *, ours: bool) -> bool:
    """Whether something that exists is of a model, or holds one."""
    place = Path(reference).expanduser()
    if place.is_file() and reference not in built_in():
        return any(
            os.path.samestat(target.stat(), file.stat()) or _is_within(file, target)
            for file in _parts_of_model(place)
        )
    if reference in built_in():
        places = [Path(__file__).parent.parent]
    elif place.is_dir():
        places = [place]
    else:  # of a hub or a server
        hub = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
        places = [cache_folder(), hub]
    return any(
        _is_within(folder, target) or (_is_within(target, folder) and not ours)
        for folder in places
        if folder.exists()
    )


def _parts_of_model(file: Path) -> Iterator[Path]:
    """A model's file and those beside it that shape its answers."""
    yield from parts_of(file)
    settings = file.with_suffix(".yaml")
    if labels := find_labels(file):
        yield labels
    if settings.is_file():
        yield settings
        with suppress(ConfigError):
            values = read_yaml(settings, ConfigError).values()
            places = (file.parent / value for value in values if isinstance(value, str) and value)
            yield from (place for place in places if _is_file(place))


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or leads into it, whatever both are called."""
    if not folder.is_dir():
        return False
    place = path.resolve()
    return any(parent.exists() and parent.samefile(folder) for parent in (place, *place.parents))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text too long for a name
        return False
