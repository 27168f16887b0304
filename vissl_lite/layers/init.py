"""Initial weights that several trunks share. On the meta device all of it does nothing."""

from math import sqrt

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def init_convnet_(module: nn.Module) -> None:
    """A convolution's weight ~ N(0, sqrt(2 / (k^2 C_out))): He et al. (arXiv 1502.01852).

    The fan-out is not divided by the number of groups, as in pycls, ClassyVision and torchvision.
    Biases become 0; norm layers 1 and 0, running statistics fresh. For use with `module.apply`.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, _BatchNorm):
        module.reset_parameters()


def init_transformer_(module: nn.Module) -> None:
    """As timm, DINO and DINOv2: weights of linear layers ~ N(0, 0.02) truncated at +-2, biases 0.

    Convolutions (the patch embedding) and layer norms keep PyTorch's defaults. For `module.apply`.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.Conv2d, nn.LayerNorm)):
        module.reset_parameters()
