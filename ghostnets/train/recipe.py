"""How to train: one frozen dataclass. The named ones are in ``recipes``."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from ghostnets.errors import ConfigurationError

__all__ = ["SMALL_IMAGE", "Recipe"]

SMALL_IMAGE = 64  # pixels: up to this size a network that can keeps more of the resolution (``small_input``)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes, besides the images.

    Shares of the run are shares of its epochs, so that a recipe keeps its form when ``epochs`` is changed.

    Attributes:
        model: Name of the network; ``ghostnets list`` tells them.
        width: Width multiplier instead of the model's own.
        ratio: s of the Ghost modules instead of the model's own; 1 gives plain convolutions.
        cheap_kernel_size: d of the Ghost modules instead of the model's own.
        image_size: Side of the input in pixels; by default that of the images up to 64, else 224.
        in_chans: 1 for grey, 3 for colour; by default 1 where all images are grey.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth: chance that training leaves out the last block; it grows from 0 at the first.
        weights: Start from these instead of random ones: best.safetensors of a run (its network takes the place of
            model), another file or hf:// address for this model, or "pretrained" for published ones. For other classes
            the classifier is a new one.
        frozen: Train the classifier alone, on features that the rest computes once for each image and its mirror image.
        epochs: Times each training image is seen.
        batch_size: Images a step, in all processes and parts together.
        accumulate: Parts in which a batch goes through the network, one after the other, to save memory.
        optimizer: SGD with Nesterov momentum 0.9; AdamW; RMSprop with momentum 0.9, smoothing 0.9 and epsilon 0.001 (as
            GhostNetV2 was trained); or LAMB (You et al., arXiv 1904.00962).
        lr: Learning rate at its peak.
        schedule: How it falls after warming up: cosine or linear to 0, or step by step.
        warmup: Share of the run in which the learning rate rises along a line.
        milestones: Of schedule step: shares of the run after which decay_rate is applied.
        decay_epochs: Of schedule step, without milestones: decay_rate is applied every so many epochs.
        decay_rate: Factor of a step.
        weight_decay: Pull of the weights towards 0.
        decay_all: Also of biases and normalisation, which it does good to leave out.
        layer_decay: Factor of the learning rate from each stage to the one before it; below 1, the first layers of
            trained weights change least.
        clip_norm: Largest norm of the gradient of all weights together; 0 for any.
        ema_decay: Evaluate and keep a moving average of the weights with this decay (at step n at most
            (1 + n) / (10 + n)); 0 for none.
        label_smoothing: Share of the target spread over all classes.
        mixup: Blend pairs of images and their targets (Zhang et al., arXiv 1710.09412), with this alpha; 0 for never.
        cutmix: Paste a rectangle of another image (Yun et al., arXiv 1905.04899), with this alpha; 0 for never. With
            mixup, one of the two is chosen for each step.
        shift: Images that have the input's size: random shift by up to so many pixels.
        min_scale: All others: smallest share of the area that a random crop keeps.
        flip: Mirror half of the training images.
        randaugment: Operations of RandAugment for each image.
        randaugment_magnitude: Their strength, 0 to 30.
        erasing: Share of the images in which a random rectangle is erased.
        class_balanced: Draw every class equally often.
        teacher: Learn from this network as well: best.safetensors of a run, NAME=FILE for other weights of a network of
            the registry, NAME for its published ones, timm:NAME or torchvision:NAME.
        distill: What of the teacher: its soft labels, or its features before the classifier.
        distill_weight: Weight of that beside the loss of the labels, whose weight is 1.
        temperature: Of the soft labels (Hinton et al., arXiv 1503.02531); their loss is multiplied by its square.
        precision: float32; or bf16 or fp16 where torch.autocast finds that safe, fp16 with a loss scaler.
        channels_last: Memory layout of the images and weights.
        compile: Run the network through torch.compile.
        sync_bn: Normalise over the images of all processes, so that their number changes nothing but rounding.
        val_share: Share of each class kept back for validation where the data has no such part.
        seed: Of the weights, the order, the augmentation and the split.
    """

    model: str = "ghostnet_100"
    width: float | None = None
    ratio: int | None = None
    cheap_kernel_size: int | None = None
    image_size: int | None = None
    in_chans: int | None = None
    drop_rate: float = 0.2
    drop_path_rate: float = 0.0
    weights: str | None = None
    frozen: bool = False

    epochs: int = 30
    batch_size: int = 32
    accumulate: int = 1

    optimizer: Literal["sgd", "adamw", "rmsprop", "lamb"] = "sgd"
    lr: float = 0.05
    schedule: Literal["cosine", "linear", "step"] = "cosine"
    warmup: float = 0.25
    milestones: tuple[float, ...] = ()
    decay_epochs: float | None = None
    decay_rate: float = 0.1
    weight_decay: float = 5e-4
    decay_all: bool = False
    layer_decay: float = 1.0
    clip_norm: float = 0.0
    ema_decay: float = 0.0

    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    shift: int = 1
    min_scale: float = 0.35
    flip: bool = True
    randaugment: int = 0
    randaugment_magnitude: int = 9
    erasing: float = 0.0
    class_balanced: bool = False

    teacher: str | None = None
    distill: Literal["labels", "features"] = "labels"
    distill_weight: float = 1.0
    temperature: float = 1.0

    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    sync_bn: bool = False

    val_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {getattr(self, name)}, wanted {want}" for name, (ok, want) in self._limits().items() if not ok
        ]
        if self.schedule == "step" and bool(self.milestones) == (self.decay_epochs is not None):
            wrong.append("schedule is step, wanted milestones or decay_epochs, one of them")
        if self.frozen and self.weights is None:
            wrong.append("frozen is True without weights, wanted weights to start from")
        if self.frozen and (self.teacher or self.mixup or self.cutmix):
            wrong.append("frozen is True with a teacher, mixup or cutmix, wanted none of these")
        if wrong:
            raise ConfigurationError(f"the recipe cannot be used: {'; '.join(wrong)}.")

    def _limits(self) -> dict[str, tuple[bool, str]]:
        falls = list(self.milestones) == sorted(self.milestones) and all(0 < m < 1 for m in self.milestones)
        return {
            "width": (self.width is None or self.width > 0, "above 0"),
            "ratio": (self.ratio is None or self.ratio >= 1, "at least 1"),
            "cheap_kernel_size": (self.cheap_kernel_size is None or self.cheap_kernel_size % 2 == 1, "odd"),
            "image_size": (self.image_size is None or 8 <= self.image_size <= 2048, "from 8 to 2048"),
            "in_chans": (self.in_chans in (None, 1, 3), "1 or 3"),
            "drop_rate": (0 <= self.drop_rate < 1, "in [0, 1)"),
            "drop_path_rate": (0 <= self.drop_path_rate < 1, "in [0, 1)"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2, for batch normalisation"),
            "accumulate": (1 <= self.accumulate <= self.batch_size, "from 1 to batch_size"),
            "optimizer": (self.optimizer in ("sgd", "adamw", "rmsprop", "lamb"), "sgd, adamw, rmsprop or lamb"),
            "lr": (self.lr > 0, "above 0"),
            "schedule": (self.schedule in ("cosine", "linear", "step"), "cosine, linear or step"),
            "warmup": (0 <= self.warmup < 1, "in [0, 1)"),
            "milestones": (falls, "shares of the run between 0 and 1, ascending"),
            "decay_epochs": (self.decay_epochs is None or self.decay_epochs > 0, "above 0"),
            "decay_rate": (0 < self.decay_rate <= 1, "in (0, 1]"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "layer_decay": (0 < self.layer_decay <= 1, "in (0, 1]"),
            "clip_norm": (self.clip_norm >= 0, "at least 0"),
            "ema_decay": (0 <= self.ema_decay < 1, "in [0, 1)"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "mixup": (self.mixup >= 0, "at least 0"),
            "cutmix": (self.cutmix >= 0, "at least 0"),
            "shift": (self.shift >= 0, "at least 0"),
            "min_scale": (0 < self.min_scale <= 1, "in (0, 1]"),
            "randaugment": (self.randaugment >= 0, "at least 0"),
            "randaugment_magnitude": (0 <= self.randaugment_magnitude <= 30, "from 0 to 30"),
            "erasing": (0 <= self.erasing <= 1, "in [0, 1]"),
            "distill": (self.distill in ("labels", "features"), "labels or features"),
            "distill_weight": (self.distill_weight > 0, "above 0"),
            "temperature": (self.temperature > 0, "above 0"),
            "precision": (self.precision in ("float32", "bf16", "fp16"), "float32, bf16 or fp16"),
            "val_share": (0 < self.val_share < 1, "between 0 and 1"),
            "seed": (self.seed >= 0, "at least 0"),
        }

    def changed(self, **values: Any) -> "Recipe":
        """A copy with other values; raises ConfigurationError for a name that is no field."""
        if unknown := sorted(values.keys() - self.__dataclass_fields__.keys()):
            raise ConfigurationError(
                f"a recipe has no {', '.join(unknown)}; it has {', '.join(self.__dataclass_fields__)}."
            )
        return replace(self, **values)

    def differences(self, other: "Recipe") -> dict[str, Any]:
        """The fields in which this recipe is not as ``other``, with its own values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The recipe that ``to_dict`` wrote, also by way of JSON, which has no tuples."""
        return cls(**{**values, "milestones": tuple(values.get("milestones", ()))})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
