"""Mixed precision: some nodes of an int8 plan compute in float32."""

from collections.abc import Collection
from typing import Any

from ghostnets.engine.plan import Plan
from ghostnets.errors import ConfigurationError

__all__ = ["keep_in_float"]

READS = ("input", "residual", "gate")  # fields of a node that name a map it reads
HEAD = ("pool", "linear")  # kinds of nodes that convert between types themselves
WEIGHTLESS = ("add", "arrange", "resize")  # in float32 too if all that they read is: bytes would round it once more


def keep_in_float(plan: Plan, names: Collection[str]) -> None:
    """Make nodes of a plan compute in float32 on float32 maps; call this before calibration.

    Args:
        plan: Plan, changed in place.
        names: Names of modules; the nodes of these modules and their submodules are kept in float32. The name of a part
            of a node, such as a convolution inside a Ghost module, selects the whole node.

    Raises:
        ConfigurationError: A name matches no layer.
    """
    kept = set[int]()
    for name in names:
        found = _nodes_of(plan, name)
        if not found:
            nodes = sorted({node["name"] for node in plan.nodes if node["name"]})
            raise ConfigurationError(f"the network has no layer {name!r} to keep in float32; some are {nodes[:20]}.")
        kept.update(found)
    nodes, plan.nodes = plan.nodes, []
    copies: dict[tuple[int, bool], int] = {}  # (map, is float32) -> converted map
    floats: set[int] = set()
    for number, original in enumerate(nodes):
        node, is_kept = dict(original), number in kept
        if node["kind"] in WEIGHTLESS:
            is_kept = is_kept or floats.issuperset(_reads(node))
        if node["kind"] == "linear" and is_kept:
            floats.add(node["input"])  # the mean, or the output of a linear layer
        elif node["kind"] not in (*HEAD, "stem", "output"):
            _convert_inputs(plan, node, is_kept, floats, copies)
        if is_kept and node["kind"] != "pool":
            floats.add(node["output"])
        plan.nodes.append(node)
    plan.floats = sorted(floats)


def _reads(node: dict[str, Any]) -> list[int]:
    """Return the maps that a node reads."""
    return [*(node[role] for role in READS if node.get(role, -1) >= 0), *node.get("pooled", [])]


def _nodes_of(plan: Plan, name: str) -> list[int]:
    """Return the nodes of a module and its submodules, or the smallest node that contains it."""
    names = [node["name"] for node in plan.nodes]
    inside = [i for i, node in enumerate(names) if node == name or node.startswith(f"{name}.")]
    around = {node for node in names if node and name.startswith(f"{node}.")}
    return inside or [i for i, node in enumerate(names) if around and node == max(around, key=len)]


def _convert_inputs(
    plan: Plan, node: dict[str, Any], is_kept: bool, floats: set[int], copies: dict[tuple[int, bool], int]
) -> None:
    """Redirect a node to inputs of its own type, inserting conversions where needed."""

    def converted(index: int) -> int:
        if index < 0 or (index in floats) == is_kept:
            return index
        if (index, is_kept) not in copies:
            copy = copies[index, is_kept] = plan.new_map(plan.layouts[index])
            plan.add("convert", node["name"], input=index, output=copy)
            if is_kept:
                floats.add(copy)
        return copies[index, is_kept]

    for role in READS:
        if role in node:
            node[role] = converted(node[role])
    if "pooled" in node:
        node["pooled"] = [converted(index) for index in node["pooled"]]
