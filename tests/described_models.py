"""Models that are nothing but what their files say: `files(...)` and `runtime(...)`."""

from types import SimpleNamespace

from mlopsdeploy.columns import Field, Made, ModelFiles, TaskOptions, Written
from mlopsdeploy.core.model_yaml import ModelYaml
from mlopsdeploy.errors import RowError

MATRIX = (Field("features", "float32", (2,)),)
NO_OPTIONS = TaskOptions()


def files(*, made=None, classes=None, said=None, **known):
    """What is known of a model; `made` is how its outputs are, by name."""
    written = Written(
        outputs={name: Made(kind, "the graph") for name, kind in (made or {}).items()},
        classes=classes or {},
        **{name: known.pop(name) for name in ("task_source", "pixels") if name in known},
        task=known.pop("kind", ""),
    )
    yaml = ModelYaml.model_validate(said or {})
    defaults = {
        "name": "m", "version": "", "digest": "", "task": "", "graphs": {},
        "features": ("age", "visits"), "labels_from": "m.yaml",
    }  # fmt: skip
    return ModelFiles(**{**defaults, **known}, yaml=yaml, written=written)


def runtime(*outputs, inputs=MATRIX, **metadata):
    """Tensors; an output is a name of one number, or a field."""
    fields = tuple(Field(one, "float32", (1,)) if isinstance(one, str) else one for one in outputs)
    return SimpleNamespace(
        inputs=inputs, outputs=fields, metadata=metadata, quantization={}, run=_refuse
    )


def _refuse(_):
    raise RowError("there is no model")
