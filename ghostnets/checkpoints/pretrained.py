"""``create_model`` as the front door has it: built by ``models``, with published weights where they are asked for."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ghostnets.checkpoints.hub import load_pretrained
from ghostnets.errors import ConfigurationError
from ghostnets.models import Backbone, Network, model_entry
from ghostnets.models import create_model as build_model

__all__ = ["create_model"]


def create_model(
    name: str,
    *,
    pretrained: bool | str = False,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    **arguments: Any,
) -> nn.Module:
    """Builds a network, with random weights or published ones.

    >>> model = create_model("ghostnet_100", num_classes=10, in_chans=1, small_input=True)
    >>> backbone = create_model("ghostnet_100", features_only=True, out_indices=(1, 2, 3, 4))

    With weights, which are fetched once and cached (``load_pretrained``)::

        classifier = create_model("ghostnet_100", pretrained=True)
        for_my_classes = create_model("ghostnet_100", pretrained="official", num_classes=10)

    Args:
        name: One of ``list_models()``.
        pretrained: Load published weights: True for the first of the table in docs/models.md, or a tag of it. With
            ``num_classes`` other than theirs the classifier stays as it is, random; everything else must fit.
        features_only: Give a backbone whose forward returns a list of maps (``models.Backbone``).
        out_indices: Which maps, with ``features_only``.
        **arguments: Of the network: ``num_classes``, ``in_chans``, ``drop_rate``, ``output_stride`` for all;
            ``drop_path_rate`` for all that have residual blocks; ``width``, ``ratio``, ``cheap_kernel_size``,
            ``small_input`` and others as its class tells.

    Returns:
        The network, in training mode, float32, on the CPU.

    Raises:
        UnknownNameError: There is no such network, or no such tag.
        ConfigurationError: The network has no such argument, or its value is out of range.
        CheckpointError: There are no such weights, they could not be fetched, or they do not fit.
        MissingExtraError: They are a Keras file (tag ``kecam``), and h5py is not installed.
        StorageError: The fetched file could not be written.
    """
    if not pretrained:
        return build_model(name, features_only=features_only, out_indices=out_indices, **arguments)
    if out_indices is not None and not features_only:
        raise ConfigurationError(
            "out_indices is given without features_only=True; add features_only=True, or leave out_indices out."
        )
    model = build_model(name, **arguments)
    assert isinstance(model, Network)
    is_other_task = model.num_classes != model_entry(name).variant.benchmark.num_classes
    tag = pretrained if isinstance(pretrained, str) else None
    load_pretrained(model, name, tag, replace_head=is_other_task)
    return Backbone(model, out_indices=out_indices) if features_only else model
