"""Convert the traced graph of any network to a plan: a layout for each feature map, and nodes for each step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ghostnets.engine.graph import Step, TensorProxy, raise_unsupported_step
from ghostnets.engine.graph_passes import simplify
from ghostnets.engine.graph_steps import (
    MAX_SEGMENTS,
    activation_of,
    f32,
    fields_of,
    ghost_layout,
    is_depthwise_step,
    is_grouped_step,
    is_linear_step,
    is_stem_step,
)
from ghostnets.engine.graph_trace import trace_graph
from ghostnets.engine.plan import Array, Layout, Plan
from ghostnets.errors import ConfigurationError

__all__ = ["make_graph_plan"]

KEEPS_LAYOUT = ("act", "affine", "max_pool", "average_pool", "adaptive_pool", "resize", "pad", "squeeze_excite")


def make_graph_plan(
    model: nn.Module, *, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), output: str = "logits"
) -> Plan:
    """Return the plan of any network that takes images; arguments as in ``make_plan``.

    Raises:
        EngineError: A module is unsupported; the message has its path.
        ConfigurationError: Features are requested of a network without a final linear layer.
    """
    steps, result = trace_graph(model)
    traced = list(_outputs(result))
    gives_maps = traced[0].form == "map"
    if any(each.form != traced[0].form for each in traced) or (not gives_maps and len(traced) > 1):
        raise_unsupported_step("", "returns several vectors, or vectors and maps")
    ends = [each.step for each in traced]
    if output != "logits":
        last = ends[0]
        if gives_maps or last.op != "conv" or last.size != (1, 1):
            raise ConfigurationError(
                f"output is {output!r}, but the network does not end with a linear layer; omit it."
            )
        ends = [last.inputs[0]] if output == "features" else ends
        if output == "features+logits":
            _append_identity(last)
    steps, ends = simplify(steps, ends)
    plan = Plan(steps[0].channels, mean=mean, std=std, gives_maps=gives_maps)
    _NodeEmitter(plan, steps, ends).emit()
    return plan


def _outputs(result: Any) -> list[TensorProxy]:
    """Return the output tensors of a network, in order."""
    if isinstance(result, TensorProxy):
        return [result]
    values = list(result.values()) if isinstance(result, Mapping) else result
    if not isinstance(values, Sequence) or not values or isinstance(values, str):
        raise_unsupported_step("", f"returns a {type(result).__name__}")
    return [each for value in values for each in _outputs(value)]


def _append_identity(last: Step) -> None:
    """Extend the classifier by the identity, so that it returns its input followed by the logits."""
    weight, channels = last.fields["weight"], last.inputs[0].channels
    identity = np.eye(channels, dtype=np.float32)[:, :, None, None]
    last.fields["weight"] = np.concatenate([identity, weight])
    last.fields["bias"] = np.concatenate([np.zeros(channels, np.float32), last.fields["bias"]])
    last.channels += channels


class _NodeEmitter:
    """Adds nodes to a plan, step by step."""

    def __init__(self, plan: Plan, steps: list[Step], ends: list[Step]) -> None:
        self.plan, self.steps, self.ends = plan, steps, ends
        self.maps: dict[int, int] = {}  # id of an emitted step -> index of its map
        self.arranged: dict[tuple[int, Layout], int] = {}
        self.readers: dict[int, list[Step]] = {id(step): [] for step in steps}
        for step in steps:
            for source in step.inputs:
                self.readers[id(source)].append(step)

    def emit(self) -> None:
        """Add the nodes of all steps."""
        tail = [] if self.plan.gives_maps else self._tail()
        images, *steps = self.steps
        readers = self.readers[id(images)]
        if len(readers) != 1 or not is_stem_step(readers[0]) or any(end is images for end in self.ends):
            eye = np.eye(images.channels, dtype=np.float32)[:, :, None, None]
            self._stem(images, eye, np.zeros(images.channels, np.float32), "", stride=1, pads=[0] * 4)
        for step in steps:
            if not any(step is late for late in tail):
                self.maps[id(step)] = getattr(self, f"_{step.op}")(step)
        if self.plan.gives_maps:
            for number, end in enumerate(self.ends):
                x = self.maps[id(end)]
                self.plan.outputs.append(x)
                self.plan.add("output", end.path or str(number), input=x, output=self._like(x))
            return
        self.plan.outputs = [self._head(tail)]

    def _tail(self) -> list[Step]:
        """Return the steps of the head: global average pooling and the linear layers after it."""
        (step,) = self.ends
        tail = [step]
        while tail[0].op == "conv" and is_linear_step(tail[0]) and len(self.readers[id(tail[0].inputs[0])]) == 1:
            tail.insert(0, tail[0].inputs[0])
        if tail[0].op == "adaptive_pool" and tail[0].size == (1, 1):
            return tail
        if step.size != (1, 1):
            raise_unsupported_step(step.path, "ends with a vector that is not a global average")
        return []

    def _head(self, tail: list[Step]) -> int:
        """Add the head. A network without one ends with a map of one pixel, which global pooling leaves unchanged."""
        first = tail[0].inputs[0] if tail else self.ends[0]
        x = self.maps[id(first)]
        y = self._like(x)
        self.plan.add("pool", tail[0].path if tail else first.path, input=x, output=y)
        for step in tail[1:]:
            x, y = y, self.plan.new_map(Layout(step.channels))
            weight = np.asarray(step.fields["weight"])[:, :, 0, 0]
            tensors = {"weight": self._columns(x, weight), "bias": step.fields["bias"]}
            self.plan.add("linear", step.path, input=x, output=y, **activation_of(step), tensors=tensors)
        return y

    # Layouts of maps.

    def _layout(self, step: Step, depth: int = 0) -> Layout:
        """Return the layout that the readers of a step's output require."""
        for reader in self.readers[id(step)] if depth < 100 else []:
            if reader.op == "ghost" and len(reader.inputs) == 2 and reader.inputs[1] is step:
                return ghost_layout(reader)
            if reader.op == "conv" and is_grouped_step(reader):
                return Layout(step.channels, reader.fields["groups"], is_grouped=True)
            if (reader.op == "conv" and is_depthwise_step(reader)) or reader.op in KEEPS_LAYOUT:
                if reader.channels != step.channels:  # several outputs per channel
                    continue
                return self._layout(reader, depth + 1)
            if reader.op in ("add", "multiply"):
                first = reader.inputs[0]
                if first is not step and id(first) in self.maps:
                    return self.plan.layouts[self.maps[id(first)]]
                if first is step and reader.inputs[1].op == "ghost":
                    return ghost_layout(reader.inputs[1])
                return self._layout(reader, depth + 1)
        return Layout(step.channels)

    def _like(self, x: int) -> int:
        return self.plan.new_map(self.plan.layouts[x])

    def _columns(self, x: int, weight: npt.NDArray[Any]) -> Array:
        columns: Array = self.plan.layouts[x].arrange(np.asarray(weight, np.float32), 1)
        return columns

    def _as(self, x: int, layout: Layout, path: str) -> int:
        """Return map ``x`` rearranged to another layout; ``x`` itself if it has that layout."""
        if self.plan.layouts[x] == layout:
            return x
        if (x, layout) not in self.arranged:
            positions = self.plan.layouts[x].positions
            sources = [positions[channel] if channel >= 0 else -1 for channel in layout.order.reshape(-1).tolist()]
            y = self.plan.new_map(layout)
            self.plan.add("arrange", path, pooled=[x], output=y, sources=sources)
            self.arranged[x, layout] = y
        return self.arranged[x, layout]

    def _stem(self, step: Step, weight: npt.NDArray[Any], bias: Any, path: str, **fields: Any) -> int:
        layout, images = self._layout(step), self.plan.new_map(Layout(weight.shape[1]))
        y = self.plan.new_map(layout)
        tensors = {"weight": layout.arrange(np.asarray(weight, np.float32), 0), "bias": layout.arrange(f32(bias), 0)}
        self.plan.add("stem", path, input=images, output=y, **fields, tensors=tensors)
        self.images = images
        self.maps[id(step)] = y
        return y

    def _conv(self, step: Step) -> int:
        fields, (source,) = step.fields, step.inputs
        weight, bias = f32(fields["weight"]), f32(fields["bias"])
        window = {**activation_of(step), "stride": fields["stride"], "pads": [int(pad) for pad in fields["pads"]]}
        if source.op == "images" and id(source) not in self.maps:
            return self._stem(step, weight, bias, step.path, **window)
        x = self.maps[id(source)]
        dilation_h, dilation_w = fields["dilation"]
        window |= {"dilation_h": dilation_h, "dilation_w": dilation_w}
        if is_depthwise_step(step):
            return self._depthwise(step, x, weight[:, 0], bias, **window)
        groups, to = fields["groups"], self._layout(step)
        if groups > 1:
            if groups > MAX_SEGMENTS:
                raise_unsupported_step(step.path, f"has {groups} groups, more than {MAX_SEGMENTS}")
            x = self._as(x, Layout(source.channels, groups, is_grouped=True), step.path)
            to = Layout(step.channels, groups, is_grouped=True)
        else:
            weight = self._columns(x, weight)
        y = self.plan.new_map(to)
        tensors = {"weight": to.arrange(weight, 0), "bias": to.arrange(bias, 0)}
        ends = {"ends_group": 1} if window.get("activation") == "none" and weight.shape[2:] == (1, 1) else {}
        self.plan.add("conv", step.path, input=x, output=y, groups=groups, **window, **ends, tensors=tensors)
        return y

    def _depthwise(self, step: Step, x: int, weight: Array, bias: Array, **fields: Any) -> int:
        """Add a depthwise convolution; with several outputs per channel, the input channel is repeated."""
        multiplier = step.channels // step.inputs[0].channels
        if multiplier > 1:
            positions = self.plan.layouts[x].positions
            y = self.plan.new_map(Layout(step.channels))
            sources = [positions[channel // multiplier] for channel in range(step.channels)]
            self.plan.add("arrange", step.path, pooled=[x], output=y, sources=sources)
            x = y
        layout, y = self.plan.layouts[x], self._like(x)
        shape = (layout.segments, layout.channels)
        tensors = {
            "weight": layout.arrange(weight, 0).reshape(*shape, *weight.shape[1:]),
            "bias": layout.arrange(bias, 0).reshape(shape),
        }
        self.plan.add("depthwise", step.path, input=x, output=y, **fields, tensors=tensors)
        return y

    def _affine(self, step: Step) -> int:
        weight = f32(step.fields["scale"])[:, None, None]
        x = self.maps[id(step.inputs[0])]
        return self._depthwise(step, x, weight, f32(step.fields["shift"]), **activation_of(step))

    def _pad(self, step: Step) -> int:
        if not step.fields["is_zero"]:
            raise_unsupported_step(step.path, "pads with -inf before an operation other than max pooling")
        ones, zeros = np.ones((step.channels, 1, 1), np.float32), np.zeros(step.channels, np.float32)
        return self._depthwise(step, self.maps[id(step.inputs[0])], ones, zeros, pads=list(step.fields["pads"]))

    def _act(self, step: Step) -> int:
        ones, zeros = np.ones((step.channels, 1, 1), np.float32), np.zeros(step.channels, np.float32)
        return self._depthwise(step, self.maps[id(step.inputs[0])], ones, zeros, **activation_of(step))

    def _add(self, step: Step) -> int:
        x, residual = (self.maps[id(source)] for source in step.inputs)
        residual = self._as(residual, self.plan.layouts[x], step.path)
        y = self._like(x)
        self.plan.add("add", step.path, input=x, residual=residual, output=y, **activation_of(step))
        return y

    def _multiply(self, step: Step) -> int:
        x, other = (self.maps[id(source)] for source in step.inputs)
        other = self._as(other, self.plan.layouts[x], step.path)
        first, second = (source.size == (1, 1) for source in step.inputs)
        y = self._like(x)
        kind = "scale" if second and not first else "multiply"
        self.plan.add(kind, step.path, input=x, residual=other, output=y, **activation_of(step))
        return y

    def _arrange(self, step: Step) -> int:
        """Add a channel selection, converting channel indices to positions in the layouts of the maps."""
        maps = [self.maps[id(source)] for source in step.inputs]
        positions: list[int] = []
        offset = 0
        for x in maps:
            layout = self.plan.layouts[x]
            positions += [offset + position for position in layout.positions]
            offset += layout.segments * layout.channels
        to = self._layout(step)
        wanted = [step.fields["sources"][channel] if channel >= 0 else -1 for channel in to.order.reshape(-1).tolist()]
        y = self.plan.new_map(to)
        sources = [positions[source] if source >= 0 else -1 for source in wanted]
        self.plan.add("arrange", step.path, pooled=maps, output=y, sources=sources)
        return y

    def _max_pool(self, step: Step) -> int:
        x = self.maps[id(step.inputs[0])]
        y, fields = self._like(x), fields_of(step, "kernel", "stride", "pad", "pad_end")
        self.plan.add("max_pool", step.path, input=x, output=y, dilation_h=step.fields["dilation"], **fields)
        return y

    def _average_pool(self, step: Step) -> int:
        x = self.maps[id(step.inputs[0])]
        y, fields = self._like(x), fields_of(step, "kernel", "stride", "pad", "pad_end")
        if tuple(fields.values()) == (2, 2, 0, 0):  # sides of one pixel are kept, as in a DFC gate
            self.plan.add("average", step.path, input=x, output=y)
            return y
        counts = int(step.fields["counts_padding"])
        self.plan.add("average_pool", step.path, input=x, output=y, counts_padding=counts, **fields)
        return y

    def _adaptive_pool(self, step: Step) -> int:
        x = self.maps[id(step.inputs[0])]
        y, (height, width) = self._like(x), step.size or (1, 1)
        self.plan.add("adaptive_pool", step.path, input=x, output=y, out_h=height, out_w=width)
        return y

    def _resize(self, step: Step) -> int:
        x = self.maps[id(step.inputs[0])]
        y, fields = self._like(x), fields_of(step, "is_bilinear", "aligns_corners", "factor", "out_h", "out_w")
        if len(step.inputs) > 1:
            like = step.inputs[1]
            fields["like"] = self.images if like.op == "images" else self.maps[id(like)]
        self.plan.add("resize", step.path, input=x, output=y, **fields)
        return y

    def _squeeze_excite(self, step: Step) -> int:
        x = self.maps[id(step.inputs[0])]
        layout, y = self.plan.layouts[x], self._like(x)
        reduce, expand = step.fields["reduce"], step.fields["expand"]
        tensors = {
            "weight": self._columns(x, reduce["weight"][:, :, 0, 0]),
            "bias": reduce["bias"],
            "second_weight": layout.arrange(f32(expand["weight"][:, :, 0, 0]), 0),
            "second_bias": layout.arrange(f32(expand["bias"]), 0),
        }
        activations = {
            "inner_activation": reduce.get("activation", "none"),
            "activation": expand.get("activation", "none"),
        }
        self.plan.add("squeeze_excite", step.path, input=x, output=y, **activations, tensors=tensors)
        return y

    def _ghost(self, step: Step) -> int:
        source, *others = step.inputs
        layout, primary, cheap = ghost_layout(step), step.fields["primary"], step.fields["cheap"]
        fields: dict[str, Any] = {"stride": primary["stride"], "activation": step.fields["activation"]}
        weight, shape = f32(primary["weight"]), (layout.channels, layout.segments - 1)
        second = f32(cheap["weight"])[:, 0].reshape(*shape, *cheap["weight"].shape[2:]).swapaxes(0, 1).copy()
        bias = f32(cheap["bias"]).reshape(shape).T.copy()
        is_surplus = layout.order[1:] < 0
        second[is_surplus], bias[is_surplus] = 0, 0
        if source.op == "images" and id(source) not in self.maps:
            images, y = self.plan.new_map(Layout(source.channels)), self.plan.new_map(layout)
            self.images, x, kind = images, images, "stem"
        else:
            x, kind = self.maps[id(source)], "ghost"
            weight = self._columns(x, weight)
            y = -1
        for other in others:
            name = "gate" if "gate" in step.fields else "residual"
            fields[name] = self._as(self.maps[id(other)], layout, step.path)
        y = self.plan.new_map(layout) if y < 0 else y
        fields |= {"dilation_h": cheap["dilation"][0], "dilation_w": cheap["dilation"][0]}
        fields["primary_dilation"] = primary["dilation"][0]
        tensors = {"weight": weight, "bias": f32(primary["bias"]), "second_weight": second, "second_bias": bias}
        self.plan.add(kind, step.path, input=x, output=y, **fields, tensors=tensors)
        return y
