"""The networks and their registry."""

from ghostnets.models.ghostnet import BlockSpec, GhostNet, GhostNetFeatures
from ghostnets.models.printed_port import PrintedGhostNet
from ghostnets.models.registry import create_model, list_models, model_arguments, model_entry

__all__ = [
    "BlockSpec",
    "GhostNet",
    "GhostNetFeatures",
    "PrintedGhostNet",
    "create_model",
    "list_models",
    "model_arguments",
    "model_entry",
]
