"""The networks and their registry. Names are imported on first access, so the table of names needs no torch."""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.models.backbone import Backbone
    from ghostnets.models.d_li14 import DLi14GhostNet
    from ghostnets.models.features import FeatureInfo, FeatureLevel
    from ghostnets.models.g_ghost import GGhostRegNet
    from ghostnets.models.ghost_resnet import GhostResNet
    from ghostnets.models.ghost_vgg import GhostVGG
    from ghostnets.models.ghostnet import BlockSpec, GhostNet
    from ghostnets.models.ghostnetv2 import GhostNetV2
    from ghostnets.models.ghostnetv3 import GhostNetV3
    from ghostnets.models.names import resolve_name
    from ghostnets.models.network import Network
    from ghostnets.models.registry import create_model, list_models, model_arguments, model_entry

__all__ = [
    "Backbone",
    "BlockSpec",
    "DLi14GhostNet",
    "FeatureInfo",
    "FeatureLevel",
    "GGhostRegNet",
    "GhostNet",
    "GhostNetV2",
    "GhostNetV3",
    "GhostResNet",
    "GhostVGG",
    "Network",
    "create_model",
    "list_models",
    "model_arguments",
    "model_entry",
    "resolve_name",
]

_MODULES = {
    "Backbone": "backbone",
    "BlockSpec": "ghostnet",
    "DLi14GhostNet": "d_li14",
    "FeatureInfo": "features",
    "FeatureLevel": "features",
    "GGhostRegNet": "g_ghost",
    "GhostNet": "ghostnet",
    "GhostNetV2": "ghostnetv2",
    "GhostNetV3": "ghostnetv3",
    "GhostResNet": "ghost_resnet",
    "GhostVGG": "ghost_vgg",
    "Network": "network",
    "create_model": "registry",
    "list_models": "registry",
    "model_arguments": "registry",
    "model_entry": "registry",
    "resolve_name": "names",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
