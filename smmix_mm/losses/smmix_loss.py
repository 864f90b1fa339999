"""The three losses of SMMix."""

from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.registry import MODELS
from smmix_mm.structures import Criterion, Features, MixedBatch, RegionClassifier


@MODELS.register_module()
class SMMixLoss(nn.Module):
    r"""Mixed label, fine-grained regions, and consistency with the unmixed predictions.

    `SMMix: Self-Motivated Image Mixing for Vision Transformers <https://arxiv.org/abs/2212.12977>`_, section 3.3.

    .. math::
        L_{cls} &= CE(Y_M, y_M) \\
        L_{fine} &= \tfrac{1}{2} (CE(F(\bar t_{region}), y_A) + CE(F(\bar t_{rest}), y_B)) \\
        L_{con} &= KL(p \,\|\, \mathrm{softmax}(Y_M))

    :math:`\bar t` are means of the final normalised tokens, :math:`F` is the region classifier, :math:`p` the
    prediction for the unmixed images. CE is the stock head's own criterion, including label smoothing.

    Args:
        cls_weight (float): Weight of :math:`L_{cls}`, at least 0. Defaults to 1.
        fine_weight (float): Weight of :math:`L_{fine}`, at least 0. Defaults to 1.
        con_weight (float): Weight of :math:`L_{con}`, at least 0. Defaults to 1. A term of weight 0 costs nothing and
            is not reported.

    Raises:
        ValueError: If a weight is negative or all are 0.
    """

    def __init__(self, cls_weight: float = 1.0, fine_weight: float = 1.0, con_weight: float = 1.0) -> None:
        super().__init__()
        weights = dict(cls_weight=cls_weight, fine_weight=fine_weight, con_weight=con_weight)
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f'weights of SMMixLoss have to be at least 0 and not all 0, but got {weights}')
        self.cls_weight = cls_weight
        self.fine_weight = fine_weight
        self.con_weight = con_weight

    def forward(
        self,
        logits: Tensor,
        features: Features,
        mixed: MixedBatch,
        criterion: Criterion,
        classify_regions: RegionClassifier | None = None,
    ) -> dict[str, Tensor]:
        """Computes the losses.

        Args:
            logits (Tensor): ``(B, classes)`` of the mixed images.
            features (Features): Of the mixed images; its tokens are read if ``fine_weight`` is not 0.
            mixed (MixedBatch): With ``source_mask``, ``source_targets`` and ``target_targets`` if ``fine_weight`` is
                not 0, and ``expected`` if ``con_weight`` is not 0.
            criterion (Criterion): Loss of logits under soft targets.
            classify_regions (RegionClassifier, optional): Logits of mean tokens; needed if ``fine_weight`` is not 0.

        Returns:
            dict[str, Tensor]: Scalars ``loss_cls``, ``loss_fine`` and ``loss_con``, weighted.
        """
        losses = {}
        if self.cls_weight:
            losses['loss_cls'] = self.cls_weight * criterion(logits, mixed.targets)
        if self.fine_weight:
            source, target = functional.region_means(features.tokens, mixed.source_mask)
            source_loss = criterion(classify_regions(source), mixed.source_targets)
            target_loss = criterion(classify_regions(target), mixed.target_targets)
            losses['loss_fine'] = self.fine_weight * (source_loss + target_loss) / 2
        if self.con_weight:
            losses['loss_con'] = self.con_weight * functional.consistency_loss(logits, mixed.expected)
        return losses

    def extra_repr(self) -> str:
        return f'cls_weight={self.cls_weight}, fine_weight={self.fine_weight}, con_weight={self.con_weight}'
