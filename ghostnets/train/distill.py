"""Knowledge distillation from a teacher network: soft labels or features."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.checkpoints import (
    METADATA_KEY,
    Checkpoint,
    create_model,
    find_weights,
    load_checkpoint,
    parse_checkpoint,
    read_checkpoint,
    read_weights,
)
from ghostnets.checkpoints.fetch import HUB_PREFIX
from ghostnets.data import ImageDataset, evaluation_batches
from ghostnets.errors import ConfigurationError, require
from ghostnets.files import write_atomically
from ghostnets.models import Network, model_entry
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.frozen import classifier_head
from ghostnets.train.recipe import Recipe

__all__ = ["Distillation", "FeatureStudent", "Teacher", "load_teacher", "split_teacher"]


class Teacher:
    """A frozen network to learn from.

    Args:
        model: Network, images -> logits.
        preprocessing: Preprocessing of the network.
        class_names: Names in the order of the logits, or None if unknown.

    Raises:
        ConfigurationError: The network has no linear layer, whose inputs are the features.
    """

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, class_names: tuple[str, ...] | None = None
    ) -> None:
        self.model, self.preprocessing, self.class_names = (
            model.eval().requires_grad_(False),
            preprocessing,
            class_names,
        )
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ConfigurationError(
                f"the teacher {type(model).__name__} has no linear classifier; choose another teacher."
            )
        self.classifier = linear[-1]
        self.classifier.register_forward_pre_hook(lambda _, inputs: setattr(self, "_features", inputs[0]))

    @property
    def feature_channels(self) -> int:
        return self.classifier.in_features

    def to(self, device: torch.device) -> "Teacher":
        """Move the network to a device."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (N, C, H, W) from 0 to 255 -> logits (N, num_classes) and features (N, feature_channels).

        The pixels of the student are resized and converted to the image size and channels of the teacher.
        """
        size, channels = self.preprocessing.image_size, self.preprocessing.channels
        pixels = pixels.float()
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, (size, size), mode=self.preprocessing.interpolation, antialias=True)
            pixels = pixels.clamp(0, 255)  # bicubic interpolation overshoots
        if pixels.shape[1] != channels:
            pixels = pixels.expand(-1, channels, -1, -1) if channels == 3 else pixels.mean(1, keepdim=True)
        logits: Tensor = self.model(self.preprocessing.normalize(pixels))
        features: Tensor = self._features
        return logits, features

    _features: Tensor


def load_teacher(name: str, class_names: tuple[str, ...]) -> Teacher:
    """Load a teacher by name.

    Args:
        name: best.safetensors of a run, NAME=FILE, NAME, timm:NAME or torchvision:NAME (see ``Recipe.teacher``).
        class_names: Class names of the data, which must be those of the teacher; a teacher without class names must
            have as many classes.

    Raises:
        CheckpointError: The file cannot be used.
        ConfigurationError: There is no such teacher, or it has other classes.
        MissingExtraError: timm is not installed.
    """
    library, _, peer = name.partition(":")
    network, file = split_teacher(name)
    if not network and file.endswith(".safetensors"):
        teacher = _from_checkpoint(read_checkpoint(file))
    elif library == "timm":
        teacher = _from_timm(peer)
    elif library == "torchvision":
        teacher = _from_torchvision(peer)
    elif network:
        teacher = _from_file(network, file)
    else:
        teacher = Teacher(create_model(name, pretrained=True), find_weights(name).preprocessing)
    known = teacher.classifier.out_features
    if teacher.class_names not in (None, class_names) or known != len(class_names):
        pairs = enumerate(zip(teacher.class_names or (), class_names, strict=False))
        differing = (
            f" (class {index} is {its} there, and {ours} in the data)" for index, (its, ours) in pairs if its != ours
        )
        difference = next(differing, "")
        raise ConfigurationError(
            f"the teacher {name} has {known} classes, the data has {len(class_names)}{difference}; both must have the"
            " same, in the same order."
        )
    return teacher


def split_teacher(name: str) -> tuple[str, str]:
    """Split NAME=FILE; the network of any other teacher, such as a path with ``=`` in it, is empty."""
    network, sign, file = name.partition("=")
    is_path = not sign or Path(network).name != network or Path(name).exists()
    return ("", name) if is_path else (network, file)


def _from_checkpoint(checkpoint: Checkpoint) -> Teacher:
    return Teacher(checkpoint.build(), checkpoint.preprocessing, checkpoint.class_names)


def _from_file(name: str, file: str) -> Teacher:
    model = load_checkpoint(name, file)  # rejects a checkpoint of another network
    if not file.startswith(HUB_PREFIX) and METADATA_KEY in (weights := read_weights(file)).metadata:
        return _from_checkpoint(parse_checkpoint(weights))
    size = model_entry(name).variant.benchmark.image_size
    return Teacher(model, Preprocessing.standard(size, next(model.parameters()).shape[1]))


def _from_timm(name: str) -> Teacher:
    timm = require("timm", extra="bench")
    if not timm.is_model(name):
        raise ConfigurationError(f"timm {timm.__version__} has no network {name!r}; timm.list_models() lists them.")
    try:
        model = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise _download_error(f"timm's {name}", error) from error
    data: dict[str, Any] = timm.data.resolve_data_config(model=model)
    size = data["input_size"][-1]
    return Teacher(model, Preprocessing(size, size, tuple(data["mean"]), tuple(data["std"])))


def _from_torchvision(name: str) -> Teacher:
    models = require("torchvision.models", extra="train")
    if name not in models.list_models(module=models):
        raise ConfigurationError(
            f"torchvision has no classifier {name!r}; torchvision.models.list_models(torchvision.models) lists them."
        )
    weights = models.get_model_weights(name).DEFAULT
    try:
        model = models.get_model(name, weights=weights)
    except OSError as error:
        raise _download_error(f"torchvision's {name}", error) from error
    transforms = weights.transforms()
    size = transforms.crop_size[0]
    return Teacher(model, Preprocessing(size, size, tuple(transforms.mean), tuple(transforms.std)))


def _download_error(name: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the weights of {name} cannot be downloaded ({error}); check the network, or choose another teacher."
    )


class FeatureStudent(nn.Module):
    """A network with a trained linear projection of its features to the teacher's number of channels.

    Images -> logits (N, num_classes) and projected features (N, feature_channels).
    """

    def __init__(self, network: Network, feature_channels: int) -> None:
        super().__init__()
        self.network, self.head = network, classifier_head(network)
        self.projection = nn.Linear(network.head_features, feature_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        network: Any = self.network
        features = network.forward_head(network.forward_features(x), pre_logits=True)
        return self.head(features), self.projection(features)


class Distillation:
    """Distillation loss of a student, by soft labels or by features.

    Args:
        teacher: Network to learn from.
        recipe: Recipe with the kind of distillation and its temperature.
    """

    def __init__(self, teacher: Teacher, recipe: Recipe) -> None:
        self.teacher, self.recipe = teacher, recipe
        self.cached: tuple[Tensor, Tensor] | None = None

    def cache_teacher(self, images: ImageDataset, preprocessing: Preprocessing, file: Path | None) -> None:
        """Compute the teacher's outputs once for every image, for runs without augmentation.

        Args:
            images: The training images.
            preprocessing: Preprocessing of the student; the teacher sees the same pixels.
            file: Cache, read if it exists, else written; None to keep the outputs in memory only.

        Raises:
            StorageError: The file cannot be written.
        """
        if file is not None and file.exists():
            tensors = load_file(file)
            self.cached = tensors["logits"], tensors["features"]
            return
        device = next(self.teacher.model.parameters()).device
        outputs = [
            self.teacher(batch.pixels.to(device)) for batch in evaluation_batches(images, preprocessing, batch_size=64)
        ]
        logits, features = (torch.cat([pair[i].float().cpu() for pair in outputs]) for i in (0, 1))
        self.cached = logits, features
        if file is not None:
            with write_atomically(file) as temporary:
                temporary.write_bytes(save({"logits": logits, "features": features}))

    def losses(self, pixels: Tensor, indices: Tensor, logits: Tensor, features: Tensor | None) -> Tensor:
        """Compute the loss of each image, (N,).

        Soft labels: cross-entropy between the softmax of the teacher and of the student at the temperature T, times T
        squared. Features: squared distance, summed over channels, of features normalised to unit length.

        Args:
            pixels: Pixels of the student, (N, C, H, W) from 0 to 255, after mixing.
            indices: Indices of the images in the dataset, (N,).
            logits: Logits of the student, (N, num_classes).
            features: Projected features of the student; None for soft labels.
        """
        if self.cached is not None:
            teacher_logits, teacher_features = (output[indices.cpu()].to(logits.device) for output in self.cached)
        else:
            teacher_logits, teacher_features = self.teacher(pixels)
        if features is not None:
            return (F.normalize(features.float()) - F.normalize(teacher_features.float())).square().sum(1)
        temperature = self.recipe.temperature
        soft = (teacher_logits.float() / temperature).softmax(1)
        return F.cross_entropy(logits.float() / temperature, soft, reduction="none") * temperature**2
