"""Which SavedModels are loaded untrusted: those whose graphs compute, and do nothing else.

A SavedModel is a program, and some of TensorFlow's 1,900 operators read, write, delete or send.
Those that can't are found by what TensorFlow itself declares of each: an operator without a state
that takes no text, no handle, no function and no setting in free words can't name a file or an
address. Of the others those are allowed that are listed here; they were looked at one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.framework import op_def_registry

from mlopsdeploy.core.paths import within

# Beyond those that compute numbers from numbers. DecodeProtoV2, FixedUnigramCandidateSampler and
# the like, which may name files, are left out, as are datasets, readers, summaries and debuggers.
_LISTED = {
    name
    for group in (
        # texts
        """AsString DecodeBase64 EncodeBase64 Fingerprint RaggedCross ReduceJoin RegexFullMatch
    RegexReplace ShardedFilename SparseCrossV2 StaticRegexFullMatch StaticRegexReplace StringFormat
    StringJoin StringLength StringLower StringNGrams StringSplit StringSplitV2 StringStrip
    StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper
    Substr UnicodeDecode UnicodeDecodeWithOffsets UnicodeTranscode UnsortedSegmentJoin""",
        # values, pictures and sounds from bytes
        """DecodeAndCropJpeg DecodeBmp DecodeCSV DecodeGif DecodeImage DecodeJSONExample DecodeJpeg
    DecodePaddedRaw DecodePng DecodeRaw DecodeWav DecodeWebP DeserializeManySparse EncodeJpeg
    ExtractJpegShape ParseExample ParseExampleV2 ParseSequenceExample ParseSequenceExampleV2
    ParseSingleExample ParseSingleSequenceExample ParseTensor""",
        # arrays, with settings in free words
        """DataFormatDimMap DataFormatVecPermute DenseToDenseSetOperation DenseToSparseSetOperation
    Einsum Empty ExtractGlimpse ExtractGlimpseV2 GatherNd ImageProjectiveTransformV2
    ImageProjectiveTransformV3 PreventGradient RaggedTensorToTensor ScaleAndTranslate
    ScaleAndTranslateGrad ScatterNd ScatterNdAdd ScatterNdMax ScatterNdMin ScatterNdNonAliasingAdd
    ScatterNdSub ScatterNdUpdate SparseToSparseSetOperation TensorScatterAdd TensorScatterMax
    TensorScatterMin TensorScatterSub TensorScatterUpdate UniformQuantizedConvolution
    UniformQuantizedConvolutionHybrid""",
        # control flow and checks; what is called is checked itself
        """Assert Case CheckNumerics CheckNumericsV2 DeviceIndex Enter For GuaranteeConst If
    MapDefun PartitionedCall Print RefEnter StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile While""",
        # variables and tables in memory
        """AnonymousHashTable AnonymousMutableDenseHashTable AnonymousMutableHashTable
    AnonymousMutableHashTableOfTensors AssignAddVariableOp AssignSubVariableOp AssignVariableOp
    DestroyResourceOp DestroyTemporaryVariable DisableCopyOnRead HashTable HashTableV2
    InitializeTable InitializeTableV2 MutableDenseHashTable MutableDenseHashTableV2 MutableHashTable
    MutableHashTableOfTensors MutableHashTableOfTensorsV2 MutableHashTableV2 ReadVariableOp
    ResourceCountUpTo ResourceGather ResourceGatherNd ResourceStridedSliceAssign TemporaryVariable
    VarHandleOp VarIsInitializedOp Variable VariableShape VariableV2""",
        # recurrent layers of GPUs; random numbers, which dropout draws; words for a training log
        """CudnnRNN CudnnRNNBackprop CudnnRNNBackpropV2 CudnnRNNBackpropV3 CudnnRNNV2 CudnnRNNV3
    Multinomial NonDeterministicInts ParameterizedTruncatedNormal RandomCrop RandomGamma
    RandomPoisson RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt
    RngReadAndSkip RngSkip SampleDistortedBoundingBox SampleDistortedBoundingBoxV2
    StatefulRandomBinomial StatefulStandardNormal StatefulStandardNormalV2 StatefulTruncatedNormal
    StatefulUniform StatefulUniformFullInt StatefulUniformInt StatelessRandomGetAlg TruncatedNormal
    HistogramSummary ImageSummary MergeSummary ScalarSummary""",
    )
    for name in group.split()
}
# Whole families, by how their names begin: they work on what they are given.
_FAMILIES = (
    "BoostedTrees", "IsBoostedTrees", "LookupTable", "RaggedTensor", "ResourceApply",
    "ResourceScatter", "ResourceSparseApply", "SparseMatrix", "TensorArray", "TensorList",
    "TensorMap",
)  # fmt: skip
# Those that call back into the Python program which made the graph; no file holds that.
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_TO_SCREEN = {b"", b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)"}
# A SavedModel keeps its weights with these; they run, if at all, when it is restored.
_SAVER = {"SaveV2", "RestoreV2", "MergeV2Checkpoints"}
# These read a vocabulary; it must be one of the SavedModel's own assets. The input that names it.
_TABLES = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}
_FILES = {*_SAVER, *_TABLES}
# Calls that pass on what they are given, one by one.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_INIT = "__saved_model_init_op"
_HANDLES = {types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT}


class _Place(NamedTuple):
    """A node: the function that it is in, empty for the graph itself, and its name there."""

    function: str
    name: str


def unknown_operators(saved: Any) -> set[str]:
    """Those that TensorFlow doesn't have: they come with packages of their own."""
    found: set[str] = set()
    for meta in saved.meta_graphs:
        functions = {function.signature.name for function in meta.graph_def.library.function}
        kinds = {node.op for _, node in _nodes(meta)} - functions
        found |= {kind for kind in kinds if op_def_registry.get(kind) is None}
    return found


def python_operators(saved: Any) -> set[str]:
    """Those that call back into the Python program which made the graph; no file holds that."""
    return {node.op for meta in saved.meta_graphs for _, node in _nodes(meta)} & _PYTHON


def reason_against(folder: Path, saved: Any) -> str:
    """What a SavedModel does beside computing, in a few words; empty if nothing.

    Args:
        folder: that it lies in.
        saved: its `SavedModel` message.
    """
    graphs = saved.meta_graphs
    objects = len(graphs) == 1 and graphs[0].HasField("object_graph_def")
    reasons = (reason for meta in graphs for reason in _reasons(folder, meta, objects=objects))
    return next(reasons, "")


def _nodes(meta: Any) -> Iterator[tuple[_Place, Any]]:
    for node in meta.graph_def.node:
        yield _Place("", node.name), node
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            yield _Place(function.signature.name, node.name), node


def _reasons(folder: Path, meta: Any, *, objects: bool) -> Iterator[str]:
    assets = _assets(meta)
    for asset in assets:
        if within(folder / "assets", asset.filename) is None or "://" in asset.filename:
            yield f"names a file outside of its folder, {asset.filename[:80]!r}"
    graph = _Graph(meta, objects=objects)
    if graph.ambiguous:
        yield f"has two nodes called {graph.ambiguous}"
    yield from graph.reads_and_writes({_node_of(asset.tensor_info.name) for asset in assets})
    for node in graph.nodes.values():
        if node.op == "PrintV2":
            if node.attr["output_stream"].s not in _TO_SCREEN:
                yield f"writes files ({node.op})"
        elif not (node.op in _FILES or graph.calls(node.op) or _computes(node.op)):
            yield f"holds the operator {node.op}, which may do more than compute"


@cache
def _computes(kind: str) -> bool:
    """Whether an operator is known to do nothing else."""
    if kind in _LISTED or kind.startswith(_FAMILIES):
        return True
    declared = op_def_registry.get(kind)
    if declared is None or declared.is_stateful or kind.startswith("_"):
        return False
    return not any(given.type in _HANDLES for given in declared.input_arg) and not any(
        setting.type in ("func", "list(func)")
        or (setting.type in ("string", "list(string)") and not setting.allowed_values.list.s)
        for setting in declared.attr
    )


class _Graph:
    """A graph and its functions: which nodes run, and where what they take comes from.

    Args:
        meta: its `MetaGraphDef`.
        objects: it is loaded as TensorFlow 2 does, as objects that have functions; else as
            TensorFlow 1 did, as a graph.
    """

    def __init__(self, meta: Any, *, objects: bool) -> None:
        self._meta = meta
        self._objects = objects
        self._functions = {one.signature.name: one for one in meta.graph_def.library.function}
        self.nodes: dict[_Place, Any] = {}
        self.ambiguous = ""  # a name that stands for two things, of which one would go unseen
        if len(self._functions) < len(meta.graph_def.library.function):
            self.ambiguous = "as one of its functions"
        self._within: defaultdict[str, list[_Place]] = defaultdict(list)
        self._callers: defaultdict[str, list[_Place]] = defaultdict(list)
        for place, node in _nodes(meta):
            if place in self.nodes:
                self.ambiguous = place.name
            self.nodes[place] = node
            self._within[place.function].append(place)
            for called in self._called(node):
                self._callers[called].append(place)

    def calls(self, kind: str) -> bool:
        """Whether an operator is a function of this graph, and of no other."""
        return kind in self._functions and op_def_registry.get(kind) is None

    def _called(self, node: Any) -> Iterator[str]:
        if self.calls(node.op):
            yield node.op
        for value in node.attr.values():
            for function in (value.func, *value.list.func):
                if function.name in self._functions:
                    yield function.name

    def signatures(self) -> Iterator[_Place]:
        """What gives the answers of the signatures that can be called."""
        if self._objects:
            for name in self._meta.object_graph_def.concrete_functions:
                yield from self._within[name]
            return
        for name, signature in self._meta.signature_def.items():
            if name != _INIT:
                yield from _outputs(signature)

    def initialisers(self) -> Iterator[_Place]:
        """What runs when a graph is loaded; of objects these are functions like the others."""
        if self._objects:
            return
        if _INIT in self._meta.signature_def:
            yield from _outputs(self._meta.signature_def[_INIT])
        for key in ("saved_model_main_op", "legacy_init_op"):
            if key in self._meta.collection_def:
                for name in self._meta.collection_def[key].node_list.value:
                    yield _Place("", _node_of(name))

    def reached(self, roots: Iterable[_Place]) -> set[_Place]:
        """These nodes and all that run before them or within them."""
        found: set[_Place] = set()
        pending = list(roots)
        while pending:
            place = pending.pop()
            if place in found or place not in self.nodes:
                continue
            found.add(place)
            node = self.nodes[place]
            pending.extend(_Place(place.function, _node_of(name)) for name in node.input)
            for called in self._called(node):
                pending.extend(self._within[called])
        return found

    def reads_and_writes(self, assets: Collection[str]) -> Iterator[str]:
        """What it does with files beside reading its own weights and assets.

        Args:
            assets: nodes for which the true place of an asset is put in while a graph is
                initialised, and only then.
        """
        saver = self._meta.saver_def
        signed = self.reached(self.signatures())
        running = signed | self.reached(self.initialisers())
        restoring = self.reached([_Place("", _node_of(saver.restore_op_name))])
        weights = {_Place("", _node_of(saver.filename_tensor_name))}
        vocabularies = {_Place("", name) for name in assets}
        for place, node in self.nodes.items():
            if node.op in _TABLES and place in running:
                own = () if place in signed else vocabularies
                if not self.comes_from(place, _TABLES[node.op], own):
                    yield f"reads a file that isn't one of its assets ({node.op})"
            elif node.op in _SAVER:
                reads = node.op == "RestoreV2" and self.comes_from(place, 0, weights)
                if place in running or (place in restoring and not reads):
                    yield f"reads or writes files ({node.op})"

    def comes_from(self, place: _Place, number: int, sources: Collection[_Place]) -> bool:
        """Whether a node's input is only ever one of these sources, or an asset."""
        seen: set[_Place] = set()
        pending = [_Place(place.function, _node_of(_inputs(self.nodes[place])[number]))]
        while pending:
            origin = pending.pop()
            if origin in seen or origin in sources:
                continue
            seen.add(origin)
            node = self.nodes.get(origin)
            if node is not None and node.op == "Identity":
                pending.append(_Place(origin.function, _node_of(node.input[0])))
            elif node is not None or not origin.function or not self._passed(origin, pending):
                return False
        return True

    def _passed(self, argument: _Place, pending: list[_Place]) -> bool:
        """Whether what is passed to a function as this argument can be followed."""
        name = argument.function
        takes = [given.name for given in self._functions[name].signature.input_arg]
        if argument.name not in takes:
            return False
        place = takes.index(argument.name)
        for caller in self._callers[name]:
            node = self.nodes[caller]
            if self._objects and not caller.function:
                continue  # the graph around the functions isn't run
            if node.op not in _CALLS and node.op != name:
                return False
            pending.append(_Place(caller.function, _node_of(_inputs(node)[place])))
        objects = self._meta.object_graph_def
        if self._objects and name in objects.concrete_functions:
            bound = objects.concrete_functions[name].bound_inputs
            own = place - (len(takes) - len(bound))  # those that it has caught come last
            return own >= 0 and objects.nodes[bound[own]].WhichOneof("kind") == "asset"
        return True


def _outputs(signature: Any) -> Iterator[_Place]:
    for output in signature.outputs.values():
        yield _Place("", _node_of(output.name))


def _inputs(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def _node_of(tensor: str) -> str:
    """`^name`, `name:0` and `name:output:0` -> `name`."""
    return tensor.removeprefix("^").partition(":")[0]


def _assets(meta: Any) -> list[Any]:
    """The files that it names, as TensorFlow 2 lists them, else as TensorFlow 1 did."""
    if meta.asset_file_def:
        return list(meta.asset_file_def)
    found = []
    if "saved_model_assets" in meta.collection_def:
        for packed in meta.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            found.append(asset)
    return found
