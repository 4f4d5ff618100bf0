"""Optimise a traced graph: fold constants, fuse activations, and match the patterns that the engine fuses."""

from collections.abc import Iterator

import numpy as np

from ghostnets.engine.graph import Step

__all__ = ["simplify"]

FUSABLE = ("conv", "affine", "add", "multiply")  # steps whose kernels can apply an activation
IDEMPOTENT = ("relu", "relu6")  # activations that may be applied twice, and leave zeros


def simplify(steps: list[Step], outputs: list[Step]) -> tuple[list[Step], list[Step]]:
    """Return the steps that the outputs depend on, with fused patterns, and the output steps.

    Fused are constants before or after a convolution (batch normalisation, folded in float64), zero padding before a
    convolution, activations after a step that can apply them, Ghost modules with their residual or DFC gate,
    squeeze-and-excitation, and channel selections in a row. All other steps are left unchanged.
    """
    graph = _Graph(steps, outputs)
    fusions = (_fuse_activation, _fuse_ghost, _fuse_gate, _fuse_residual, _fuse_squeeze_excite)
    for rewrite in (_fold_affine, _fold_pad, *fusions, _fold_arrange, _move_activation):
        for step in list(graph.steps):
            rewrite(graph, step)
        graph.clean()
    return graph.steps, graph.outputs


class _Graph:
    def __init__(self, steps: list[Step], outputs: list[Step]) -> None:
        self.steps, self.outputs = steps, outputs
        self.clean()

    def clean(self) -> None:
        """Remove dead steps, and find the readers of each remaining one."""
        needed: set[int] = {id(step) for step in self.outputs}
        for step in reversed(self.steps):
            if id(step) in needed:
                needed |= {id(source) for source in step.inputs}
        self.steps = [step for step in self.steps if id(step) in needed]
        self.readers: dict[int, list[Step]] = {id(step): [] for step in self.steps}
        for step in self.steps:
            for source in step.inputs:
                self.readers[id(source)].append(step)

    def only_reader(self, step: Step) -> Step | None:
        """Return the only reader of a step; None if there are several, or the step is an output."""
        readers = self.readers.get(id(step), [])
        return readers[0] if len(readers) == 1 and not any(step is output for output in self.outputs) else None

    def replace(self, old: Step, new: Step) -> None:
        """Redirect all readers of a step to another."""
        for step in self.steps:
            step.inputs = [new if source is old else source for source in step.inputs]
        self.outputs = [new if output is old else output for output in self.outputs]
        self.readers[id(new)] = self.readers.get(id(new), []) + self.readers.pop(id(old), [])
        self.readers[id(new)] = [step for step in self.readers[id(new)] if step is not old]


def _fold_affine(graph: _Graph, step: Step) -> None:
    """Fold an affine step into the convolution or affine step before it."""
    if step.op != "affine":
        return
    before = step.inputs[0]
    if before.op not in ("conv", "affine") or graph.only_reader(before) is not step:
        return
    scale, shift = step.fields["scale"], step.fields["shift"]
    first, second = ("weight", "bias") if before.op == "conv" else ("scale", "shift")
    values = np.asarray(before.fields[first], np.float64)
    before.fields[first] = values * scale.reshape(-1, *[1] * (values.ndim - 1))
    before.fields[second] = np.asarray(before.fields[second], np.float64) * scale + shift
    graph.replace(step, before)


def _fold_pad(graph: _Graph, step: Step) -> None:
    """Fold padding into the convolution or max pooling after it."""
    after = graph.only_reader(step)
    if step.op != "pad" or after is None:
        return
    above, left, below, right = step.fields["pads"]
    if after.op == "conv" and step.fields["is_zero"]:
        after.fields["pads"] = tuple(p + q for p, q in zip(after.fields["pads"], step.fields["pads"], strict=True))
    elif after.op == "max_pool" and not step.fields["is_zero"] and (above, below) == (left, right):
        after.fields["pad"] += above
        after.fields["pad_end"] += below
    else:
        return
    graph.replace(step, step.inputs[0])


def _fold_arrange(graph: _Graph, step: Step) -> None:
    """Fold a concatenation or channel selection into the selections that read it, if nothing else reads it."""
    readers = graph.readers[id(step)]
    if step.op != "arrange" or any(step is output for output in graph.outputs):
        return
    if any(reader.op != "arrange" or len(reader.inputs) != 1 for reader in readers):
        return
    sources = step.fields["sources"]
    for reader in readers:
        wanted = [sources[source] if source >= 0 else -1 for source in reader.fields["sources"]]
        reader.inputs, reader.fields["sources"] = _used_inputs(step.inputs, wanted)


def _used_inputs(inputs: list[Step], sources: list[int]) -> tuple[list[Step], list[int]]:
    """Return the inputs that a channel selection reads, at least one, and its sources counted over these."""
    used: list[Step] = []
    places: dict[int, int] = {}  # of each channel of the used inputs
    begin = count = 0
    for step in inputs:
        channels = range(begin, begin + step.channels)
        begin += step.channels
        if any(source in channels for source in sources) or (not used and step is inputs[-1]):
            places |= {channel: count + i for i, channel in enumerate(channels)}
            used.append(step)
            count += step.channels
    return used, [places[source] if source >= 0 else -1 for source in sources]


def _fuse_activation(graph: _Graph, step: Step) -> None:
    before = step.inputs[0] if step.op == "act" else None
    if before is None or before.op not in FUSABLE or graph.only_reader(before) is not step:
        return
    if before.fields.get("activation", "none") == "none":
        before.fields |= {"activation": step.fields["activation"], "slope": step.fields["slope"]}
        graph.replace(step, before)


def _move_activation(graph: _Graph, step: Step) -> None:
    """Apply an activation after a concatenation before it, as after the convolutions of a ``GhostConv2d``."""
    arrange = step.inputs[0] if step.op == "act" else None
    name = step.fields.get("activation")
    if arrange is None or name not in IDEMPOTENT or arrange.op != "arrange" or graph.only_reader(arrange) is not step:
        return
    has_it = [source.op in FUSABLE and _activation(source) == name for source in arrange.inputs]
    can_have_it = [
        source.op in FUSABLE and _activation(source) == "none" and graph.only_reader(source) is arrange
        for source in arrange.inputs
    ]
    if all(has or can for has, can in zip(has_it, can_have_it, strict=True)):
        for source in arrange.inputs:
            source.fields |= {"activation": name, "slope": step.fields["slope"]}
        graph.replace(step, arrange)


def _activation(step: Step) -> str:
    return str(step.fields.get("activation", "none"))


def _fuse_ghost(graph: _Graph, step: Step) -> None:
    """Match a Ghost module: a convolution, a depthwise convolution of its output, and their concatenation."""
    if step.op != "arrange" or len(step.inputs) != 2:
        return
    primary, cheap = step.inputs
    ghosts = graph.readers[id(primary)]
    m = primary.channels
    if (
        primary.op != "conv"
        or cheap.op != "conv"
        or cheap.inputs[0] is not primary
        or any(reader not in (cheap, step) for reader in ghosts)
        or any(primary is output for output in graph.outputs)
        or graph.only_reader(cheap) is not step
        or (primary.fields["groups"], cheap.fields["groups"], cheap.fields["stride"]) != (1, m, 1)
        or not (_is_same(primary) and _is_same(cheap))
        or _activation(primary) != _activation(cheap)
        or _activation(primary) not in ("none", "relu")
        or step.fields["sources"] not in (list(range(step.channels)),)
        or cheap.channels % m
    ):
        return
    first = graph.only_reader(step)  # surplus ghosts are removed by an indexing step
    step.op, step.inputs, step.path = "ghost", list(primary.inputs), primary.path.split(".primary_conv")[0]
    channels, end = step.channels, step
    if first is not None and first.op == "arrange" and len(first.inputs) == 1:
        sources = first.fields["sources"]
        if sources == list(range(len(sources))) and -(-len(sources) // (1 + cheap.channels // m)) == m:
            channels, end = len(sources), first
    step.fields = {"primary": primary.fields, "cheap": cheap.fields, "activation": _activation(primary)}
    step.channels, step.size = channels, primary.size
    if end is not step:
        graph.replace(end, step)


def _is_same(conv: Step) -> bool:
    """Return whether a convolution has an odd square kernel, equal dilations and "same" padding."""
    (height, width), dilation = conv.fields["weight"].shape[2:], conv.fields["dilation"]
    pads = (dilation[0] * (height // 2), dilation[1] * (width // 2))
    return bool(height == width and height % 2 and dilation[0] == dilation[1] and conv.fields["pads"] == pads * 2)


def _fuse_gate(graph: _Graph, step: Step) -> None:
    """Match the DFC gate of a Ghost module: its output times a map that is upsampled to its size."""
    if step.op != "multiply" or _activation(step) != "none":
        return
    for ghost, gate in (step.inputs, step.inputs[::-1]):
        fields = gate.fields
        if (
            ghost.op == "ghost"
            and gate.op == "resize"
            and not fields["is_bilinear"]
            and len(gate.inputs) == 2
            and gate.inputs[1] in (ghost,)
            and "residual" not in ghost.fields
            and all(reader in (step, gate) for reader in graph.readers[id(ghost)])
            and graph.only_reader(gate) is step
        ):
            step.op, step.path = "ghost", ghost.path
            step.inputs = [ghost.inputs[0], gate.inputs[0]]
            step.fields = {**ghost.fields, "gate": 1}
            return


def _fuse_residual(graph: _Graph, step: Step) -> None:
    """Match a Ghost module without activation whose output is added to a residual."""
    if step.op != "add" or _activation(step) != "none":
        return
    for ghost, residual in (step.inputs, step.inputs[::-1]):
        is_free = "gate" not in ghost.fields and "residual" not in ghost.fields
        if ghost.op == "ghost" and is_free and graph.only_reader(ghost) is step and residual is not ghost:
            step.op, step.path = "ghost", ghost.path
            step.inputs = [ghost.inputs[0], residual]
            step.fields = {**ghost.fields, "residual": 1}
            return


def _chain(step: Step) -> Iterator[Step]:
    """Return a step and its predecessors, up to one without exactly one input."""
    while True:
        yield step
        if len(step.inputs) != 1:
            return
        step = step.inputs[0]


def _fuse_squeeze_excite(graph: _Graph, step: Step) -> None:
    """Match squeeze-and-excitation: a map times the output of two layers on its channel means."""
    if step.op != "multiply" or _activation(step) != "none":
        return
    x, gate = step.inputs
    steps = list(_chain(gate))[:3]
    if len(steps) < 3:
        return
    expand, reduce, mean = steps
    is_squeeze = (
        (expand.op, reduce.op, mean.op) == ("conv", "conv", "adaptive_pool")
        and mean.size == (1, 1)
        and mean.inputs[0] is x
        and x.size != (1, 1)
        and all(
            layer.fields["weight"].shape[2:] == (1, 1) and layer.fields["groups"] == 1 for layer in (expand, reduce)
        )
        and all(graph.only_reader(a) is b for a, b in ((mean, reduce), (reduce, expand), (expand, step)))
        and max(expand.fields.get("slope", 0), reduce.fields.get("slope", 0)) == 0
    )
    if is_squeeze:
        step.op, step.path, step.inputs = "squeeze_excite", mean.path or step.path, [x]
        step.fields = {"reduce": reduce.fields, "expand": expand.fields}
