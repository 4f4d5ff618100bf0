"""The training recipe, a frozen dataclass. The named recipes are in ``recipes``."""

import re
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.train.optimizers import OPTIMIZERS

__all__ = ["AUTO_WEIGHTS", "EMBEDDED_WEIGHTS", "PRETRAINED", "SMALL_IMAGE", "Recipe", "parse_duration"]

if TYPE_CHECKING:
    OptimizerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]  # the choices of --optimizer

PRETRAINED, EMBEDDED_WEIGHTS, AUTO_WEIGHTS = "pretrained", "embedded", "auto"  # ``Recipe.weights`` without a file
SMALL_IMAGE = 64  # pixels; up to this size networks use a stem of stride 1 if they have one (``small_input``)


@dataclass(frozen=True)
class Recipe:
    """Training configuration: everything except the images that determines the result of a run.

    Durations are shares of the run, so that a recipe keeps its form when ``epochs`` changes.

    Attributes:
        model: Name of the network; ``ghostnets list`` prints them.
        backbone: Backbone of a detector or segmentation network: a network with the maps that it needs; by default that
            of the model.
        width: Width multiplier; by default that of the model.
        ratio: Ratio s of the Ghost modules; by default that of the model; 1 gives plain convolutions.
        cheap_kernel_size: Kernel size d of the cheap operations; by default that of the model.
        image_size: Side of the input in pixels; by default that of the images up to 64, else 224.
        in_chans: Input channels, 1 for grayscale or 3 for colour; by default those of the weights, without weights 1 if
            all images are grayscale. With RGB weights and 1, their stem is summed.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth: drop probability of the last block; it grows linearly from 0 at the first.
        weights: Initial weights instead of random ones: "auto" for published ones where they are cached or can be
            downloaded, else those that come with the package; "published" or "embedded" for one of them;
            best.safetensors of a run (with its network), another file or hf:// address for this model, or
            none. For other classes the classifier is new.
        frozen: Train the classifier alone, on features computed once for each image and its horizontal flip.
        epochs: Passes over the training images, if neither time_limit nor patience ends the run before.
        time_limit: Longest time of training and validation, such as 90s, 20m or 1.5h, over all sessions; the schedule
            then follows the time, so that the learning rate reaches its end in time.
        patience: Epochs without a better validation accuracy after which the run ends.
        batch_size: Images per step, over all processes and accumulation steps.
        accumulate: Gradient accumulation steps into which a batch is divided, to save memory.
        optimizer: sgd (Nesterov momentum 0.9); adamw; rmsprop (momentum 0.9, smoothing 0.9, epsilon 0.001, as for
            GhostNetV2); or lamb (You et al., arXiv 1904.00962).
        lr: Peak learning rate.
        schedule: Decay after the warm-up: cosine or linear to 0, or step.
        warmup: Share of the run with linear warm-up.
        milestones: For schedule step: shares of the run after which the rate is multiplied by decay_rate.
        decay_epochs: For schedule step without milestones: interval in epochs between multiplications by decay_rate.
        decay_rate: Factor of a step of schedule step.
        weight_decay: Weight decay.
        decay_all: Apply weight decay to biases and normalisation as well.
        layer_decay: Factor of the learning rate from each stage to the one before it; below 1, the first layers of
            pretrained weights change least.
        clip_norm: Largest norm of the gradient of all weights; 0 for no clipping.
        ema_decay: Decay of a moving average of the weights, which is then evaluated and saved (at step n at most
            (1 + n) / (10 + n)); 0 for none.
        label_smoothing: Share of the target spread over all classes; of multi-label data the share of each label
            replaced by 1/2, and 0 by default.
        mixup: Alpha of mixup (Zhang et al., arXiv 1710.09412); 0 for none.
        cutmix: Alpha of cutmix (Yun et al., arXiv 1905.04899); 0 for none. With mixup, each step uses one of the two.
        shift: Largest random shift in pixels of images that have the size of the input.
        min_scale: Smallest share of the area that a random crop of other images keeps.
        flip: Flip half of the training images: horizontal, vertical (as well for things seen from above or under a
            microscope: both), or none.
        rotate: Largest random rotation in degrees in either direction, up to 180.
        color_jitter: Largest relative change of brightness, contrast and saturation.
        randaugment: Number of RandAugment operations per image.
        randaugment_magnitude: Strength of the RandAugment operations, 0 to 30.
        erasing: Share of the images with a random rectangle erased.
        class_balanced: Draw every class equally often; not of multi-label data.
        class_weights: Weights of the images in the loss: none; or balanced, inversely proportional to the number of
            training images of the class, 1 on average.
        teacher: Teacher for distillation: best.safetensors of a run, NAME=FILE for a file of weights of a registered
            network, NAME for its published weights, timm:NAME or torchvision:NAME.
        distill: Target of the distillation: the teacher's soft labels, or its features before the classifier.
        distill_weight: Weight of the distillation loss, added to the loss of the labels.
        temperature: Temperature of the soft labels (Hinton et al., arXiv 1503.02531); their loss is multiplied by its
            square.
        precision: float32; bf16 or fp16 where torch.autocast allows it, fp16 with a loss scaler; or auto for bf16 on a
            GPU that has it, fp16 on other CUDA GPUs, and float32 elsewhere.
        channels_last: Memory layout of images and weights.
        compile: Compile the network with torch.compile.
        sync_bn: Normalise over the images of all processes; without dropout and mixing, whose random numbers are
            those of each process, their number then changes only rounding.
        val_share: Share of each class split off for validation if the data has no validation split.
        seed: Seed of the weights, the order, the augmentation and the split.
    """

    model: str = "ghostnet_100"
    backbone: str | None = None
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
    time_limit: str | None = None
    patience: int | None = None
    batch_size: int = 32
    accumulate: int = 1

    optimizer: OptimizerName = "sgd"
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
    flip: Literal["horizontal", "vertical", "both", "none"] = "horizontal"
    rotate: float = 0.0
    color_jitter: float = 0.0
    randaugment: int = 0
    randaugment_magnitude: int = 9
    erasing: float = 0.0
    class_balanced: bool = False
    class_weights: Literal["none", "balanced"] = "none"

    teacher: str | None = None
    distill: Literal["labels", "features"] = "labels"
    distill_weight: float = 1.0
    temperature: float = 1.0

    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    sync_bn: bool = False

    val_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.flip, bool):  # as recipes of earlier runs have it
            object.__setattr__(self, "flip", "horizontal" if self.flip else "none")
        if self.weights == "published":
            object.__setattr__(self, "weights", PRETRAINED)
        kinds = get_type_hints(type(self))
        wrong = [
            f"{name} is {getattr(self, name)!r}, expected {kind}" for name, kind in self._wrong_types(kinds).items()
        ]
        wrong = wrong or [
            f"{name} is {getattr(self, name)}, expected {want}" for name, (ok, want) in self._limits().items() if not ok
        ]
        if self.schedule == "step" and bool(self.milestones) == (self.decay_epochs is not None):
            wrong.append("schedule is step, expected milestones or decay_epochs, but not both")
        if self.frozen and self.weights is None:
            wrong.append("frozen is True without weights, expected weights to start from")
        if self.frozen and (self.teacher or self.mixup or self.cutmix):
            wrong.append("frozen is True with a teacher, mixup or cutmix, expected neither")
        if self.frozen and (self.rotate or self.color_jitter):
            wrong.append("frozen is True with rotate or color_jitter, expected neither, as features are cached")
        if self.class_balanced and self.class_weights != "none":
            wrong.append("class_balanced is True with class_weights, expected only one of them")
        if wrong:
            raise ConfigurationError(f"the recipe cannot be used: {'; '.join(wrong)}.")

    def _wrong_types(self, kinds: dict[str, Any]) -> dict[str, str]:
        """Return the fields whose value has the wrong type, with the name of the expected one."""
        wrong = {name: kind for name, kind in kinds.items() if not _has_type(getattr(self, name), kind)}
        return {name: kind.__name__ if isinstance(kind, type) else f"{kind}" for name, kind in wrong.items()}

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
            "time_limit": (
                self.time_limit is None or parse_duration(self.time_limit) is not None,
                "a number above 0 with its unit, such as 90s, 20m or 1.5h",
            ),
            "patience": (self.patience is None or self.patience >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2, for batch normalisation"),
            "accumulate": (1 <= self.accumulate <= self.batch_size, "from 1 to batch_size"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
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
            "flip": (self.flip in ("horizontal", "vertical", "both", "none"), "horizontal, vertical, both or none"),
            "rotate": (0 <= self.rotate <= 180, "from 0 to 180"),
            "color_jitter": (0 <= self.color_jitter <= 1, "in [0, 1]"),
            "class_weights": (self.class_weights in ("none", "balanced"), "none or balanced"),
            "min_scale": (0 < self.min_scale <= 1, "in (0, 1]"),
            "randaugment": (self.randaugment >= 0, "at least 0"),
            "randaugment_magnitude": (0 <= self.randaugment_magnitude <= 30, "from 0 to 30"),
            "erasing": (0 <= self.erasing <= 1, "in [0, 1]"),
            "distill": (self.distill in ("labels", "features"), "labels or features"),
            "distill_weight": (self.distill_weight > 0, "above 0"),
            "temperature": (self.temperature > 0, "above 0"),
            "precision": (self.precision in ("auto", "float32", "bf16", "fp16"), "auto, float32, bf16 or fp16"),
            "val_share": (0 < self.val_share < 1, "between 0 and 1"),
            "seed": (self.seed >= 0, "at least 0"),
        }

    @property
    def time_limit_seconds(self) -> float | None:
        """The time limit in seconds."""
        return None if self.time_limit is None else parse_duration(self.time_limit)

    def changed(self, **values: Any) -> "Recipe":
        """Return a copy with some fields replaced.

        Raises:
            UnknownNameError: A name is not a field of a recipe; the message suggests close matches.
            ConfigurationError: A value is out of range.
        """
        for name in values:
            if name not in self.__dataclass_fields__:
                raise UnknownNameError("recipe field", name, self.__dataclass_fields__)
        return replace(self, **values)

    def differences(self, other: "Recipe") -> dict[str, Any]:
        """Return the fields that differ from ``other``, with the values of this recipe."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Return the recipe written by ``to_dict``, also after a round trip through JSON, which has no tuples."""
        return cls(**{**values, "milestones": tuple(values.get("milestones", ()))})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_duration(text: str) -> float | None:
    """Seconds of a duration with its unit, ``s``, ``m``, ``min`` or ``h``; None for any other text.

    >>> parse_duration("20m"), parse_duration("1.5 h"), parse_duration("20")
    (1200.0, 5400.0, None)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)\s*", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2]] if match else 0.0
    return seconds or None


def _has_type(value: Any, kind: Any) -> bool:
    """Return whether a value has the type of an annotation; an integer is a float, but a bool is neither.

    Literals are left to the limits of the recipe.
    """
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if get_origin(kind) is UnionType:
        return any(_has_type(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(each, get_args(kind)[0]) for each in value)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)
