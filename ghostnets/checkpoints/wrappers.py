"""State dicts inside the mappings, and under the name prefixes, with which training code saves them.

docs/checkpoints.md has a table of the supported wrappers.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ghostnets.errors import CheckpointError

__all__ = ["find_state_dict"]

MAX_DEPTH = 4  # levels of nested mappings
AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?|shadow)(_|$)")  # part of a key that marks averaged weights
# Components that torch.compile, FSDP and activation checkpointing insert anywhere in a name.
INSERTED = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
AVERAGE_COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel
# The first weight of each family: a prefix in front of it is not part of the network.
STEMS = (
    "conv_stem.weight",
    "conv1.weight",
    "stem.0.weight",
    "features.0.0.weight",
    "blocks.0.0.primary_conv.0.weight",
)

StateDict = dict[str, Tensor]


def find_state_dict(
    content: object, path: Path, *, key: str | None = None, keeps_prefixes: bool = False
) -> tuple[StateDict, list[str]]:
    """Find the state dict of a network in the content of a file, and remove prefixes from its names.

    Of averaged weights (EMA, SWA) and trained ones the averaged are taken, unless ``key`` says otherwise.

    Args:
        content: Unpickled content of the file.
        path: Path of the file, for messages.
        key: Key of the state dict in the file, or prefix of its names: ``"model_ema"``, ``"state_dict.student"``.
        keeps_prefixes: Whether names keep their prefixes, for networks of other libraries, whose first weights are not
            known.

    Returns:
        Tensors by name, and one sentence for each choice made and each omission.

    Raises:
        CheckpointError: There is no state dict, no such key, or several state dicts, none of them averaged.
    """
    notes: list[str] = []
    found = {
        ".".join(part for part in (outer, prefix) if part): state_dict
        for outer, tensors in _candidates(content, path, notes).items()
        for prefix, state_dict in (
            {"": _clean(tensors)}
            if keeps_prefixes
            else _split_by_prefix(_clean(tensors), notes, is_chosen=key is not None)
        ).items()
    }
    if not found:
        raise CheckpointError(
            f"{path} holds no state dict (names with tensors){_describe(content)}; save model.state_dict() instead."
        )
    networks = {name: tensors for name, tensors in found.items() if any(stem in tensors for stem in STEMS)}
    candidates = networks if networks and key is None else found
    return candidates[_choose(candidates, path, key, notes)], notes


def _candidates(content: object, path: Path, notes: list[str]) -> dict[str, Mapping[str, Tensor]]:
    """All state dicts in nested mappings, by their dotted key; the content itself has the key ""."""
    if isinstance(content, Mapping) and _is_state_dict(content):
        return {"": content}
    seen: set[int] = set()  # a hostile pickle can refer to one mapping any number of times

    def walk(mapping: Mapping[Any, Any], outer: str, depth: int) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        for name, value in mapping.items():
            if not isinstance(name, str) or name.startswith("optim") or not isinstance(value, Mapping):
                continue
            if id(value) in seen:
                continue
            seen.add(id(value))
            if _is_state_dict(value):
                yield f"{outer}{name}", value
            elif depth < MAX_DEPTH:
                yield from walk(value, f"{outer}{name}.", depth + 1)

    found = dict(walk(content, "", 1)) if isinstance(content, Mapping) else {}
    if found or not isinstance(content, Mapping):
        return found
    # A state dict with other values among its tensors, {**model.state_dict(), "epoch": 3}.
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not any("." in name and tensor.ndim for name, tensor in tensors.items()):
        return {}
    notes.append(f"entries that are not tensors are left out: {_listed(content.keys() - tensors.keys())}")
    return {"": tensors}


def _is_state_dict(mapping: Mapping[Any, Any]) -> bool:
    """Whether a mapping has names and tensors only, and not merely scalars such as metrics."""
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in mapping.items()) and any(
        tensor.ndim for tensor in mapping.values()
    )


def _clean(tensors: Mapping[str, Tensor]) -> StateDict:
    """Remove the components of wrappers, and the prefix of DataParallel, DDP and AveragedModel, from all names."""
    cleaned = {
        ".".join(part for part in name.split(".") if part not in INSERTED): tensor
        for name, tensor in tensors.items()
        if name != AVERAGE_COUNTER
    }
    while cleaned and all(name.startswith("module.") for name in cleaned):
        cleaned = {name.removeprefix("module."): tensor for name, tensor in cleaned.items()}
    return cleaned


def _split_by_prefix(tensors: StateDict, notes: list[str], *, is_chosen: bool) -> dict[str, StateDict]:
    """Split a state dict into those of the networks in it, by the prefix of each without its last dot."""
    ends = [(name, name.removesuffix(stem)) for name in tensors for stem in STEMS if name.endswith(stem)]
    prefixes = {prefix for name, prefix in ends if not prefix or prefix.endswith(".")}
    prefixes = {
        prefix for prefix in prefixes if not any(prefix != other and prefix.startswith(other) for other in prefixes)
    }
    if not prefixes or "" in prefixes:
        return {"": tensors}
    split = {
        prefix.rstrip("."): {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
        for prefix in sorted(prefixes)
    }
    outside = [name for name in tensors if not name.startswith(tuple(prefixes))]
    if outside and not is_chosen:
        notes.append(f"tensors outside of {' and '.join(split)} are left out: {_listed(outside)}")
    return split


def _choose(found: Mapping[str, StateDict], path: Path, key: str | None, notes: list[str]) -> str:
    """Choose one of the state dicts."""
    names = ", ".join(sorted(found))
    if key is not None:
        chosen = [name for name in found if name == key] or [
            name for name in found if name.startswith(f"{key}.") or name.endswith(f".{key}")
        ]
        if len(chosen) != 1:
            raise CheckpointError(
                f"{path} has {'no' if not chosen else 'more than one'} state dict {key!r}; it has {names or 'one'}."
            )
        return chosen[0]
    averaged = [name for name in found if any(AVERAGED.search(part.lower()) for part in name.split("."))]
    chosen = averaged if averaged else list(found)
    if len(chosen) > 1:
        raise CheckpointError(
            f"{path} holds several state dicts: {names}; choose one by its key, such as key={chosen[0]!r}."
        )
    if len(found) > 1:
        others = ", ".join(sorted(found.keys() - {chosen[0]}))
        notes.append(f"the averaged weights {chosen[0]!r} are taken; pass key= for the others: {others}")
    return chosen[0]


def _describe(content: object) -> str:
    if not isinstance(content, Mapping):
        return f", but a {type(content).__name__}"
    return f", but {_listed(content.keys())}" if content else ", it is empty"


def _listed(names: Any, limit: int = 5) -> str:
    ordered = sorted(map(str, names))
    shown = ", ".join(ascii(name)[1:-1][:60] for name in ordered[:limit])
    return shown + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")
