"""GhostNets: build, understand, train, compress, measure and export the GhostNet family.

>>> import ghostnets
>>> model = ghostnets.create_model("ghostnet_100", num_classes=10)

Nothing heavy is imported before it is used: ``import ghostnets`` takes milliseconds, and the command line can print
its help without loading torch.
"""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ghostnets.artefacts import load_classifier
    from ghostnets.checkpoints import create_model, load_checkpoint, load_pretrained, save_checkpoint
    from ghostnets.compress import fuse, ghostify, quantize, reparameterize
    from ghostnets.errors import GhostNetsError
    from ghostnets.export import export_model
    from ghostnets.models import list_models
    from ghostnets.train import resume_training, train_model

__all__ = [
    "GhostNetsError",
    "create_model",
    "export_model",
    "fuse",
    "ghostify",
    "list_models",
    "load_checkpoint",
    "load_classifier",
    "load_pretrained",
    "quantize",
    "reparameterize",
    "resume_training",
    "save_checkpoint",
    "train_model",
]

_MODULES = {
    "GhostNetsError": "errors",
    "create_model": "checkpoints",
    "export_model": "export",
    "fuse": "compress",
    "ghostify": "compress",
    "list_models": "models",
    "load_checkpoint": "checkpoints",
    "load_classifier": "artefacts",
    "load_pretrained": "checkpoints",
    "quantize": "compress",
    "reparameterize": "compress",
    "resume_training": "train",
    "save_checkpoint": "checkpoints",
    "train_model": "train",
}


__getattr__ = lazy_getattr(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
