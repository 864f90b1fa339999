"""A loss for segmentors whose classes cover areas of very different size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smmix_mm.registry import MODELS


@MODELS.register_module()
class ClassWeightedCrossEntropy(nn.Module):
    """Cross entropy of pixels with a weight for each class, for the ``loss_decode`` of mmseg's decode heads.

    It is the weighted mean over the pixels that are not ignored, as in ``CrossEntropyLoss`` of onedl-mmsegmentation.
    That of mmsegmentation 1.2.2 also looks up a weight for the ignored class, and fails.

    Args:
        class_weight (Sequence[float]): One weight per class, at least 0.
        loss_name (str): Name in the log. Defaults to ``'loss_ce'``.

    Raises:
        ValueError: If a weight is negative or all are 0.
    """

    def __init__(self, class_weight: Sequence[float], loss_name: str = 'loss_ce') -> None:
        super().__init__()
        if not class_weight or min(class_weight) < 0 or not any(class_weight):
            raise ValueError(f'class_weight has to be at least 0 and not all 0, but got {class_weight}')
        self.loss_name = loss_name
        self.register_buffer('class_weight', torch.tensor(class_weight, dtype=torch.float), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int = -100) -> Tensor:
        """Computes the mean loss; 0 if every pixel is ignored.

        Args:
            logits (Tensor): ``(B, C, H, W)``.
            labels (Tensor): ``(B, H, W)`` int64.
            weight (Tensor, optional): Weights of the pixels ``(B, H, W)``. Defaults to None.
            ignore_index (int): Label of pixels that do not count. Defaults to -100.
        """
        losses = F.cross_entropy(logits, labels, self.class_weight, ignore_index=ignore_index, reduction='none')
        if weight is not None:
            losses = losses * weight
        ignored = labels == ignore_index
        shares = self.class_weight[labels.masked_fill(ignored, 0)].masked_fill(ignored, 0)
        return losses.sum() / shares.sum().clamp(min=torch.finfo(losses.dtype).eps)
