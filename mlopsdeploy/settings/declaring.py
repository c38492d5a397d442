"""How settings are declared: a class attribute each, from which everything else is made.

    class BatchSettings(Declared):
        batch_size: int = setting(1000, "Rows per unit of reading", group="Run", ge=1)

is the flag `--batch-size`, the variable `MLOPSDEPLOY_BATCH_SIZE`, the YAML key `batch_size`, a line
of `--help`, a row of docs/reference/settings.md, and `BatchSettings.batch_size: int` for mypy.
Only the standard library is imported here, because `--help` waits for it; pydantic checks the
values, when there are any (`checking.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from mlopsdeploy.settings import units

PREFIX = "MLOPSDEPLOY_"
T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """What values of a type look like: `metavar` in the help, `parse` for text, bounds."""

    metavar: str
    parse: Callable[[Any], Any] | None = None
    bounds: tuple[tuple[str, float], ...] = ()


Share = Annotated[float, Kind("SHARE", units.share, (("ge", 0), ("le", 1)))]
Size = Annotated[int, Kind("SIZE", units.size)]
Seconds = Annotated[float, Kind("TIME", units.seconds)]
Age = Annotated[float, Kind("AGE", units.days)]
Amount = Annotated[float, Kind("NUMBER", units.amount)]
Names = Annotated[tuple[str, ...], Kind("A,B,C", units.names)]
Threads = Annotated[int | None, Kind("N", units.auto)]
Scores = Annotated[dict[str, float] | None, Kind("LABEL=SCORE", units.scores)]
Places = Annotated[
    dict[str, tuple[tuple[float, float], ...]] | None, Kind("NAME=X,Y…", units.places)
]


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        default: its value where none is given.
        help: what it is, in one line without a full stop.
        group: its heading in `--help`; that of the setting before it where none is given.
        metavar: what stands for its value in `--help`; made from its type and name by default.
        shown: what the default amounts to, where its value says too little.
        check: called with the value and those declared before it; returns the value to take, or
            raises ValueError.
        flag: its flag, where that is not made from the name; None: it has none.
        short: a one-letter flag.
        off: the flag that switches it off.
        positional: it is an argument, not a flag.
        variables: its variables, without the prefix, where these are not made from the name.
        offers: what the shell completes: model, runtime, task or config.
        bench: `mlopsdeploy bench` has its flag as well.
        required: it has no default.
        secret: no message shows its value.
        bounds: of the value, as pydantic's `Field` takes them.
        name, annotation: from its class.
    """

    default: Any
    help: str
    group: str = ""
    metavar: str = ""
    shown: str = ""
    check: Callable[[Any, Mapping[str, Any]], Any] | None = None
    flag: str | None = ""
    short: str | None = None
    off: str | None = None
    positional: bool = False
    variables: tuple[str, ...] = ()
    offers: str | None = None
    bench: bool = False
    required: bool = False
    secret: bool = False
    bounds: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    annotation: Any = None

    @property
    def kind(self) -> Kind:
        """How its values look."""
        found = next((part for part in parts(self.annotation) if isinstance(part, Kind)), None)
        word = self.name.upper().rpartition("_")[2]
        kind = found or Kind({int: "N", float: "NUMBER"}.get(self.type, word))
        return replace(kind, metavar=self.metavar or kind.metavar)

    @property
    def type(self) -> Any:
        """Its type, with nothing around it: `int` of `int | None`, `tuple` of `tuple[str, ...]`."""
        for part in parts(self.annotation):
            if isinstance(get_origin(part) or part, type) and part is not type(None):
                return get_origin(part) or part
        return str  # words to choose from

    @property
    def several(self) -> bool:
        """Whether its flag is given again for each value."""
        return self.type is tuple and self.kind.parse is None

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes, where there are only a few."""
        found = (part for part in parts(self.annotation) if get_origin(part) is Literal)
        return tuple(word for part in found for word in get_args(part))

    @property
    def shown_default(self) -> str:
        """Its default for people; empty where there is nothing to say."""
        if self.shown or self.required or self.default in (None, False, "", ()):
            return self.shown
        if self.type is bool:
            return "yes"
        return f"{self.default:g}" if self.type is float else str(self.default)

    @property
    def shown_help(self) -> str:
        """Its help, with the words that it takes."""
        if not self.choices:
            return self.help
        return f"{self.help}: {', '.join(self.choices[:-1])} or {self.choices[-1]}"

    @property
    def spelled(self) -> str:
        """Its flag."""
        return self.flag or "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> tuple[str, ...]:
        """The variables it is read from, the first that is set."""
        return tuple(PREFIX + name for name in self.variables or (self.name.upper(),))


def setting(default: T, help: str, **traits: Any) -> T:
    """Declare a setting by its traits, see `Setting`; what is no trait is one of its `bounds`."""
    own = {name: traits.pop(name) for name in {one.name for one in fields(Setting)} & traits.keys()}
    return cast("T", Setting(default, help, bounds=traits, **own))


class SettingError(ValueError):
    """A value that a setting can't take: its place, such as `("models", 0, "route")`, and why.

    Where it is `unknown`, `value` is a key that nobody declared.
    """

    def __init__(
        self, path: tuple[int | str, ...], value: object, problem: str, *, unknown: bool = False
    ) -> None:
        super().__init__(f"{place(path)}: {value!r}: {problem}")
        self.path = path
        self.value = value
        self.problem = problem
        self.unknown = unknown


class Options:
    """Values that are checked when they are given, and never change: flags of a command."""

    given: frozenset[str]  # the names of those that are not defaults
    _declared: ClassVar[Mapping[str, Setting]]
    _typed: ClassVar[dict[str, Setting] | None] = None

    def __init_subclass__(cls) -> None:
        found: dict[str, Setting] = {}
        group = "Options"
        for name, one in [*vars(cls).items()]:
            if isinstance(one, Setting):
                group = one.group or group
                found[name] = replace(one, name=name, group=group)
                delattr(cls, name)
        for base in cls.__mro__[1:]:
            found |= {**vars(base).get("_declared", {}), **found}
        cls._declared, cls._typed = found, None

    def __init__(self, **values: Any) -> None:
        from mlopsdeploy.settings import checking

        vars(self).update(checking.checked(type(self), values))

    @classmethod
    def declared(cls) -> Mapping[str, Setting]:
        """Its settings by name, those of its bases last."""
        if cls._typed is None:
            hints = get_type_hints(cls, include_extras=True)
            cls._typed = {
                name: replace(one, annotation=hints[name]) for name, one in cls._declared.items()
            }
        return cls._typed

    @classmethod
    def before(cls, value: Any) -> Any:
        """A value before it is checked: a hook for other spellings."""
        return value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from mlopsdeploy.settings import checking

        return checking.schema(cls, handler)

    def as_dict(self, *, only_given: bool = False) -> dict[str, Any]:
        """The values as JSON and YAML have them."""
        names = [name for name in self.declared() if not only_given or name in self.given]
        return {name: _plain(getattr(self, name), only_given) for name in names}

    def replace(self, **values: Any) -> Self:
        """The same with other values, which are not checked again."""
        made = object.__new__(type(self))
        vars(made).update(vars(self), **values, given=self.given | values.keys())
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are frozen: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.as_dict(only_given=True)})"


class Declared(Options):
    """Settings that are also in YAML and in the environment."""


def parts(annotation: Any) -> Iterator[Any]:
    """`int`, `NoneType` and the kind of `Annotated[int | None, kind]`; from left to right."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from parts(part)
    else:
        yield annotation


def place(path: tuple[int | str, ...]) -> str:
    """`("models", 0, "route")` -> `models[0].route`."""
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).lstrip(".")


def _plain(value: Any, only_given: bool) -> Any:
    if isinstance(value, Options):
        return value.as_dict(only_given=only_given)
    if isinstance(value, dict):
        return {key: _plain(one, only_given) for key, one in value.items()}
    return [_plain(one, only_given) for one in value] if isinstance(value, tuple) else value
