"""The initialisation that the published figures started from."""

from torch import nn
from torch.nn.init import trunc_normal_


def init_transformer(module: nn.Module, std: float = 0.02) -> None:
    """Initialises all parameters of a vision transformer, or of a part of one, as DeiT, PVT and SMMix do.

    Linear layers, the classifiers included, from a normal distribution truncated at +-2, with zero bias; class token
    and position embeddings likewise; norms 1 and 0; convolutions as torch does. mmpretrain's own initialisation
    differs: Xavier in the feed-forward layers, zero class token and head.

    Args:
        module (nn.Module): Changed in place.
        std (float): Standard deviation before truncation. Defaults to 0.02.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            trunc_normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm | nn.Conv2d):
            part.reset_parameters()
        for name, parameter in part.named_parameters(recurse=False):
            if name == 'cls_token' or name.startswith('pos_embed'):
                trunc_normal_(parameter, std=std)
