"""Values against their declarations, by pydantic: imported when there are values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import core_schema

from mlopsdeploy.core.yaml_files import text_of
from mlopsdeploy.errors import did_you_mean
from mlopsdeploy.settings import units
from mlopsdeploy.settings.declaring import Options, Setting, SettingError

_MODELS: dict[type[Options], type[BaseModel]] = {}
# Types as pydantic's errors name them, in words.
_EXPECTED = {
    "int": "an integer", "float": "a number", "bool": "yes or no", "string": "text",
    "tuple": "a list", "dict": "a mapping", "model": "a mapping",
}  # fmt: skip


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


def checked(settings: type[Options], values: Mapping[str, Any]) -> dict[str, Any]:
    """All values of some settings, and which of them were given.

    Raises:
        SettingError: one of them is wrong.
    """
    try:
        found = _values(_model(settings).model_validate(settings.before(dict(values))))
        return {**found, "given": frozenset(values)}
    except ValidationError as error:
        first = error.errors()[0]
        path = first["loc"]
        if first["type"] == "extra_forbidden":
            hint = _unknown(settings, path)
            raise SettingError(path[:-1], path[-1], hint, unknown=True) from error
        expected = _EXPECTED.get(re.sub("_(type|parsing)$", "", first["type"]))
        problem = f"expected {expected}" if expected else first["msg"].removeprefix("Value error, ")
        problem = problem[:1].lower() + problem[1:]
        raise SettingError(path, first["input"], problem) from error


def schema(settings: type[Options], handler: Any) -> core_schema.CoreSchema:
    """How pydantic checks settings within settings."""

    def check(value: Any, inner: Callable[[Any], Any]) -> Any:
        if isinstance(value, settings):
            return value
        made = object.__new__(settings)
        vars(made).update(_values(inner(settings.before(value))))
        return made

    inner: core_schema.CoreSchema = handler.generate_schema(_model(settings))
    return core_schema.no_info_wrap_validator_function(check, inner)


def _values(model: BaseModel) -> dict[str, Any]:
    return {**vars(model), "given": frozenset(model.model_fields_set)}


def _model(settings: type[Options]) -> type[BaseModel]:
    if settings in _MODELS:
        return _MODELS[settings]
    fields: dict[str, Any] = {
        name: (_annotation(one), ... if one.required else one.default)
        for name, one in settings.declared().items()
    }
    made = create_model(settings.__name__, __base__=_Checked, **fields)
    return _MODELS.setdefault(settings, made)


def _annotation(one: Setting) -> Any:
    bounds = {**dict(one.kind.bounds), **one.bounds}
    found = Annotated[one.annotation, Field(**bounds)] if bounds else one.annotation
    if one.check is not None:
        found = Annotated[found, AfterValidator(_with_others(one.check))]
    parse = _texts if one.kind.parse is units.names else one.kind.parse
    parse = parse or (text_of if one.type is str else None)
    return Annotated[found, BeforeValidator(parse)] if parse else found


def _with_others(check: Callable[[Any, Mapping[str, Any]], Any]) -> Callable[..., Any]:
    def checked(value: Any, info: ValidationInfo) -> Any:
        return check(value, info.data)

    return checked


def _texts(value: Any) -> Any:
    """`a,b`, or a list, in which YAML may have numbers."""
    value = units.names(value)
    return [text_of(one) for one in value] if isinstance(value, list | tuple) else value


def _unknown(settings: type[Options], path: tuple[int | str, ...]) -> str:
    """What a key within settings, such as `models[0].rout`, might have been."""
    for place in path[:-1]:
        if isinstance(place, str):
            settings = _settings_in(settings.declared()[place].annotation) or settings
    return did_you_mean(str(path[-1]), settings.declared())


def _settings_in(annotation: Any) -> type[Options] | None:
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return annotation
    return next(filter(None, map(_settings_in, get_args(annotation))), None)
