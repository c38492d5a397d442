"""Pictures in, label and score out."""

from __future__ import annotations

from typing import Self

from mlopsdeploy.columns import Columns, DataKind, ModelFiles, Runtime, TaskOptions
from mlopsdeploy.tasks.classes import Classes
from mlopsdeploy.tasks.heads import Given, HeadsTask
from mlopsdeploy.tasks.pictures import PICTURE, Pictures, probe, read_input


class ImageTask(HeadsTask):
    """BGR pictures before; `facts` says how the model was understood, and why."""

    data: DataKind = "image"
    finds_objects = False
    inputs = (PICTURE,)
    batch_cost = 8

    def __init__(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        widths = {}
        if any(-1 in output.shape for output in runtime.outputs):
            self._pictures, values, facts = probe(files, runtime, options)
            widths = {name: value.size for name, value in values.items()}
        else:
            takes, facts = read_input(files, runtime, options)
            self._pictures = Pictures(takes)
        given = Given(files, runtime.outputs, options, "image", widths=widths)
        self._set_heads(self._heads_for(given))
        self.facts = (*facts, *self.facts)

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From what the files say; a made-up picture shows sizes that they leave open."""
        return cls(files, runtime, options)

    def encode(self, columns: Columns) -> Columns:
        """The model's input tensor."""
        return self._pictures.encode(columns["image"])


class ImageClassification(ImageTask):
    """BGR pictures before, labels after; see `Classes`."""

    head = Classes
