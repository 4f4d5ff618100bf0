"""The named recipes, each followed by its command and its published or measured results with their sources.

Accuracies of others are published figures; a recipe without a measured figure of our own was not measured.
"""

from collections.abc import Mapping
from typing import Any

from ghostnets.errors import UnknownNameError
from ghostnets.models.names import resolve_name
from ghostnets.train.recipe import SMALL_IMAGE, Recipe

__all__ = ["RECIPES", "default_recipe", "fit_epochs", "fit_image_size", "named_recipe"]

DRAWN_IMAGES, MIN_EPOCHS = 15_000, 5  # for the default epochs of ``transfer``: see ``fit_epochs``
FEW_IMAGES, LARGE_SIZE = 750, 224  # for its default image size: see ``fit_image_size``

PHOTOS = Recipe()
"""Photographs from scratch: a default, not a published schedule.

    ghostnets train photos/ --weights none

Measured: docs/results.md (``ants_bees``).
"""

SMALL_IMAGES = Recipe(
    model="ghostnet_050", epochs=12, batch_size=64, lr=0.1, label_smoothing=0.0, drop_rate=0.0, weight_decay=5e-4
)
"""Images of up to 64 pixels, in a few minutes on a CPU.

    ghostnets train

Measured: see docs/results.md (embedded Fashion-MNIST subset, 2 CPU cores).
"""

CIFAR10 = Recipe(
    model="ghost_resnet56",
    epochs=400,
    batch_size=128,
    lr=0.1,
    schedule="step",
    warmup=0.0,
    milestones=(0.5, 0.75, 0.9375),
    decay_rate=0.1,
    weight_decay=1e-4,
    label_smoothing=0.0,
    drop_rate=0.0,
    shift=4,
    val_share=0.1,
)
"""Ghost-ResNet-56 and Ghost-VGG-16 on CIFAR-10, as their author recommends: 400 epochs, learning rate 0.1, a tenth
of it after 200, 300 and 375, weight decay between 1e-4 and 1e-5 (iamhankai/ghostnet.pytorch, issue 7).

    ghostnets train cifar10/ --recipe cifar10
    ghostnets train cifar10/ --recipe cifar10 --model ghost_vgg16

Published: 92.7 % (Ghost-ResNet-56), 93.7 % (Ghost-VGG-16), arXiv 1911.11907, table 5; a user of issue 7 reports about
93.5 % for Ghost-VGG-16 with it. Hardware: not published. The batch of 128 and the shifts of up to 4 pixels are those of
He et al. (arXiv 1512.03385); the author gives neither. Without val/, the epoch is chosen on a tenth of the training
images.
"""

CIFAR10_FAST = Recipe(
    model="ghost_resnet20",
    epochs=12,
    batch_size=128,
    lr=0.2,
    schedule="linear",
    warmup=0.2,
    weight_decay=5e-4,
    label_smoothing=0.0,
    drop_rate=0.0,
    shift=4,
    val_share=0.1,
)
"""CIFAR-10 and similar data within a CPU budget: our own short recipe with linear decay.

    ghostnets train cifar10/ --recipe cifar10-fast

Measured: docs/results.md (82.5 % for Ghost-ResNet-20, images as JPEG, three seeds; half an hour on one thread of an AMD
EPYC or Intel Xeon).
"""

IMAGENET_GHOSTNET = Recipe(
    model="ghostnet_100",
    image_size=224,
    epochs=400,
    batch_size=1024,
    lr=0.4,
    warmup=5 / 400,
    weight_decay=4e-5,
    label_smoothing=0.1,
    drop_rate=0.2,
    min_scale=0.08,
    precision="bf16",
)
"""GhostNet on ImageNet: batches of 1024, 5 epochs of warm-up, cosine decay over 400, label smoothing 0.1, weight decay
4e-5 and none on normalisation.

    ghostnets shard imagenet/ shards/
    torchrun --nproc-per-node 8 -m ghostnets train shards/ --name v1 --recipe imagenet-ghostnet --workers 8

Published: 73.9 % for 1.0x (arXiv 1911.11907, trained in TensorFlow), 73.98 % for the released PyTorch weights.
Sources: iamhankai/ghostnet.pytorch, issues 3 (5 epochs of warm-up, cosine; learning rate 0.4, 450,000 steps with
batches of 1024; a user's dropout of 0.2 was best, 73.4 % without the warm-up) and 18 (400 epochs); d-li14 reports
73.6 % with cosine, warm-up and label smoothing in 240 epochs. Hardware: not published. Not run here. In all ImageNet
recipes here, random crops are taken from the image with its shorter side at 256 pixels, elsewhere from the whole image.
"""

IMAGENET_GHOSTNETV2 = Recipe(
    model="ghostnetv2_100",
    image_size=224,
    epochs=450,
    batch_size=1024,
    optimizer="rmsprop",
    lr=0.064,
    schedule="step",
    warmup=3 / 450,
    decay_epochs=2.4,
    decay_rate=0.973,
    weight_decay=1e-5,
    ema_decay=0.9999,
    label_smoothing=0.1,
    drop_rate=0.2,
    min_scale=0.08,
    randaugment=2,
    randaugment_magnitude=27,
    erasing=0.2,
    precision="fp16",
)
"""GhostNetV2 on ImageNet: the command of the official README, on 8 GPUs with 128 images each.

    torchrun --nproc-per-node 8 -m ghostnets train shards/ --name v2 --recipe imagenet-ghostnetv2 --workers 8

Published: 75.3 % for 1.0x (official README; timm measures 75.19 % with its own preprocessing). Not run here.
Differences: no noise on the learning rate and on RandAugment's magnitude; erased rectangles are gray instead of noise;
RandAugment's 9 of timm's 10 is 27 of torchvision's 30. Warm-up for 3 epochs and label smoothing are the defaults of the
official script.
"""

IMAGENET_GHOSTNETV3 = IMAGENET_GHOSTNETV2.changed(
    model="ghostnetv3_100",
    epochs=600,
    warmup=3 / 600,
    schedule="cosine",
    decay_epochs=None,
    teacher="timm:beitv2_large_patch16_224",
    distill="labels",
    distill_weight=1.0,
    temperature=1.0,
)
"""GhostNetV3 on ImageNet: branches merged after training, soft labels of a large teacher, moving average.

    torchrun --nproc-per-node 8 -m ghostnets train shards/ --name v3 --recipe imagenet-ghostnetv3 --workers 8

Published: 77.1 % for 1.0x (iFormer quotes it, with 600 epochs), 79.1 % for 1.3x (arXiv 2404.11202, abstract). Not run
here. Known of the authors' training: the loss of the labels and that of the soft labels with weight 1 each, at
temperature 1, teacher beitv2_large_patch16_224 (defaults of the official train.py, whose distillation loss, as
published, returns nothing); no mixup and no cutmix, which they found to hurt (abstract). Optimizer, learning rate and
augmentation of their final runs are not published; those of GhostNetV2 are used instead, with cosine decay, the default
of that script.
"""

FINETUNE = Recipe(
    weights="pretrained",
    epochs=20,
    batch_size=32,
    optimizer="adamw",
    lr=1e-3,
    warmup=0.1,
    weight_decay=0.05,
    layer_decay=0.8,
    drop_path_rate=0.0,
    ema_decay=0.99,
    label_smoothing=0.1,
)
"""Fine-tuning of pretrained weights: new classifier, learning rates that fall towards the first layers.

    ghostnets train photos/ --recipe finetune --model ghostnet_100
    ghostnets train photos/ --recipe finetune --weights runs/big/best.safetensors

The first starts from published weights (not measured), the second from another run.

Measured: docs/results.md (``ants_bees`` at 96 pixels, 30 epochs, from GhostNet 1.0x trained on CIFAR-10: 77.1 %, from
scratch 71.2 %; four minutes on one thread of an Intel Xeon).
"""

TRANSFER = FINETUNE.changed(weights="auto", image_size=160)
"""Photographs, from published weights, or from those that come with the package: the default for photographs.

    ghostnets train photos/

Without ``--recipe``, epochs and image size follow from the images (``fit_epochs``, ``fit_image_size``).

Measured from the weights that come with the package (``--weights embedded``): docs/results.md (``ants_bees``: 91.7 %,
three seeds, four CPU minutes). Not measured from published weights.
"""

FINETUNE_HEAD = Recipe(
    weights="pretrained",
    frozen=True,
    epochs=60,
    batch_size=32,
    optimizer="adamw",
    lr=3e-3,
    warmup=0.05,
    weight_decay=0.01,
    label_smoothing=0.1,
)
"""As ``finetune``, but of the classifier alone, on features that are computed once: minutes on a CPU.

    ghostnets train photos/ --recipe finetune-head --weights runs/big/best.safetensors

Measured: docs/results.md (the same photographs and initial weights: 72.5 % in half a minute).
"""

DETECT = Recipe(
    model="ghostdet_100",
    weights="auto",
    image_size=416,
    epochs=70,
    batch_size=16,
    optimizer="adamw",
    lr=1e-3,
    warmup=0.03,
    weight_decay=0.05,
    ema_decay=0.998,
    clip_norm=35.0,
    label_smoothing=0.0,
    drop_rate=0.0,
    color_jitter=0.4,
)
"""Detectors, from the weights of the backbone that come with the package.

    ghostnets train aquarium/ --task detect --recipe detect

Source: NanoDet-Plus's configuration (AdamW, learning rate 1e-3, weight decay 0.05, cosine decay, gradients clipped at
35); fewer images per step, a shorter run, and a faster moving average. Measured: docs/detection.md.
"""

SEGMENT = Recipe(
    model="ghostseg_100",
    weights="auto",
    image_size=512,
    epochs=60,
    batch_size=8,
    optimizer="adamw",
    lr=1e-3,
    warmup=0.03,
    weight_decay=0.05,
    ema_decay=0.998,
    clip_norm=5.0,
    label_smoothing=0.0,
    drop_rate=0.0,
    min_scale=0.25,
    color_jitter=0.4,
)
"""Segmentation networks, from the weights of the backbone that come with the package.

    ghostnets train aerial/ --task segment --recipe segment

Source: none; measured in docs/segmentation.md.
"""

RECIPES: dict[str, Recipe] = {
    "transfer": TRANSFER,
    "photos": PHOTOS,
    "small-images": SMALL_IMAGES,
    "cifar10": CIFAR10,
    "cifar10-fast": CIFAR10_FAST,
    "imagenet-ghostnet": IMAGENET_GHOSTNET,
    "imagenet-ghostnetv2": IMAGENET_GHOSTNETV2,
    "imagenet-ghostnetv3": IMAGENET_GHOSTNETV3,
    "finetune": FINETUNE,
    "finetune-head": FINETUNE_HEAD,
    "detect": DETECT,
    "segment": SEGMENT,
}
"""Named recipes."""


def named_recipe(name: str) -> Recipe:
    """Look up a recipe by name.

    Raises:
        UnknownNameError: There is no such recipe.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]


def fit_epochs(num_images: int) -> int:
    """Epochs of the default recipe ``transfer`` for a number of training images.

    Some 15,000 images are drawn in all, in 5 to 20 epochs: an epoch of few images is short, and many images are learned
    in few epochs. Measured: docs/results.md.
    """
    return min(TRANSFER.epochs, max(MIN_EPOCHS, round(DRAWN_IMAGES / max(1, num_images))))


def fit_image_size(num_images: int, typical_size: int) -> int:
    """Image size in pixels of the default recipe ``transfer``.

    Up to 750 images, which 20 epochs draw in minutes also at 224 pixels, are trained at that size if they have it; the
    others at 160. Measured: docs/results.md.

    Args:
        num_images: Number of training images.
        typical_size: Typical shorter side of the images in pixels.
    """
    is_large = num_images <= FEW_IMAGES and typical_size >= LARGE_SIZE
    return LARGE_SIZE if is_large else TRANSFER.image_size or LARGE_SIZE


def default_recipe(typical_size: int, changes: Mapping[str, Any]) -> str:
    """Name of the default recipe.

    Small images are trained from scratch, unless a larger input is requested; photographs, also at a small input size,
    from pretrained weights where there are any: those requested, or else published or embedded ones, if the network has
    them and its form is not changed.

    Args:
        typical_size: Shorter side of the images in pixels.
        changes: Requested fields of the recipe.
    """
    from ghostnets.checkpoints import (  # loads torch, which the command line lists recipes without
        EMBEDDED_WEIGHTS,
        WEIGHTS,
    )

    if max(typical_size, changes.get("image_size") or 0) <= SMALL_IMAGE:
        return "small-images"
    if "weights" in changes:
        return "photos" if changes["weights"] is None else "transfer"
    has_own_form = any(changes.get(name) is not None for name in ("width", "ratio", "cheap_kernel_size"))
    has_weights = resolve_name(changes.get("model", TRANSFER.model)) in {*EMBEDDED_WEIGHTS, *WEIGHTS}
    return "transfer" if has_weights and not has_own_form else "photos"
