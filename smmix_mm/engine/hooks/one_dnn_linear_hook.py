"""Linear layers of the CPU by oneDNN."""

import torch
import torch.nn.functional as F
from mmcv.cnn import Linear
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from smmix_mm.compat import is_cpu_autocast_enabled
from smmix_mm.registry import HOOKS
from smmix_mm.unwrapping import list_models

# Multiplications below which a layer stays as it is, because oneDNN prepares the weights in every call.
FEWEST = 2**24
# Up to this number of values torch does not convolve by oneDNN (use_mkldnn in ATen/native/Convolution.cpp).
NOT_CONVOLVED = 20480


class ConvolvedLinear(nn.Linear):
    """A linear layer that is computed as a convolution of 1 x 1 where this is faster: large, in float32, on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        rows = x.numel() // self.in_features
        usual = x.device.type != 'cpu' or x.dtype != torch.float32 or is_cpu_autocast_enabled()
        if usual or x.numel() <= NOT_CONVOLVED or rows * self.weight.numel() < FEWEST:
            return super().forward(x)
        pixels = x.contiguous().view(1, 1, rows, self.in_features).permute(0, 3, 1, 2)
        # Dilation does not change a kernel of one weight. Without it, torch does not use oneDNN in a single thread.
        convolved = F.conv2d(pixels, self.weight[:, :, None, None], self.bias, dilation=2)
        return convolved.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


@HOOKS.register_module()
class OneDNNLinear(Hook):
    """Computes the linear layers of a model, and of its teacher, by oneDNN on the CPU.

    torch computes linear layers in float32 by MKL and convolutions by oneDNN, which can be twice as fast on AMD's
    processors. So this hook has linear layers computed as convolutions of 1 x 1. Results differ by rounding. Names in
    checkpoints, small layers, other types than float32 and other devices stay as they are. So do projections that are
    no modules of their own, as in torch's ``MultiheadAttention``. ``torch.fx`` cannot trace the changed layers.

    Raises:
        ValueError: From :meth:`before_run`, if torch was built without oneDNN.
    """

    def before_run(self, runner: Runner) -> None:
        for model in list_models(runner.model):
            convolve_linear(model)


def convolve_linear(model: nn.Module) -> None:
    """Changes the linear layers of a model in place.

    Args:
        model (nn.Module): The model.

    Raises:
        ValueError: If torch was built without oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise ValueError('OneDNNLinear needs a torch with oneDNN, but torch.backends.mkldnn.is_available() is False')
    for module in model.modules():
        # Subclasses compute something else; mmcv's differs for empty inputs alone.
        if type(module) in (nn.Linear, Linear):
            module.__class__ = ConvolvedLinear
