"""AutoMix: mixes by a mask that a network, trained along with the model, predicts."""

import copy
import math
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.mixing.base import Answers, MixingMethod, TrainedModel
from smmix_mm.mixing.checks import NOT_NEGATIVE, POSITIVE, check_number
from smmix_mm.registry import BATCH_AUGMENTS, MODELS
from smmix_mm.streams import Streams, random_pairs
from smmix_mm.structures import Criterion, Features, MixedBatch, RegionClassifier

from .momentum_model import MomentumModel

# The part of the run, at its start, in which the momentum does not change.
CONSTANT_MOMENTUM = 0.25


@BATCH_AUGMENTS.register_module()
class AutoMix(MixingMethod):
    r"""Mixes by a mask that a mix block predicts from features of both images, and trains that block with the model.

    `AutoMix: Unveiling the Power of Mixup for Stronger Classifiers <https://arxiv.org/abs/2103.13027>`_ (ECCV 2022).

    A momentum model, the moving average of backbone, neck and head, gives the features of one of its layers for the
    unmixed images. From those of a pair and the source's share :math:`\lambda` the mix block predicts a mask on the
    layer's grid, the source's part at each position, which is upsampled by nearest neighbour. In each step
    :math:`\lambda`, from Beta(alpha, alpha), and the pairs, a random permutation of the batch, are drawn twice:

    - The first draw trains the mix block, in ``learn_prob`` of the steps. The momentum model, which is frozen but
      passes gradients on, classifies the mixed images: ``loss_mix_block``, 0 in the other steps. In all steps
      ``loss_mask``, :math:`\beta \max(|\bar s - \lambda| - margin, 0)`, keeps the mean :math:`\bar s` of the batch's
      masks near :math:`\lambda`.
    - The second draw trains the model, without gradients to the mask: ``loss_cls`` of the mixed images by the stock
      head and ``loss_one_hot`` of the unmixed ones by a second head like it, with equal weights. The backbone runs
      once on both: the mixed batch has ``2 * B`` images and labels, mixed ones first. If the share of either image
      would be below ``min_share``, they are mixed by plain Mixup instead.

    Labels are :math:`\lambda y_A + (1 - \lambda) y_B` with the drawn :math:`\lambda`, as in the paper, whatever the
    mask's mean.

    **Schedules.** Let :math:`p` be the completed part of the run, from 0 to 1. The momentum stays ``momentum``
    :math:`m_0` for the first quarter of the run, then it is :math:`m_1 + (m_0 - m_1) (1 + \cos \pi p) / 2` with
    ``end_momentum`` :math:`m_1`. :math:`\beta` is ``mask_weight`` times :math:`(1 + \cos \pi p) / 2`. :math:`p` comes
    from mmengine's iterations. A hand-written training loop has none: it keeps the values of the start or, in a process
    in which a run has ended, those of its end.

    **The momentum model** is in training mode when the model is, and is a part of the checkpoint. It is updated only in
    steps of AutoMix, once per step, before it is used; the first update copies the model. The mix block learns in the
    same steps on all ranks. With ``same_on_all_ranks=False`` of the classifier, ranks draw AutoMix in different steps
    and their momentum models diverge; the checkpoint has that of the first rank.

    The defaults are those of `OpenMixup <https://arxiv.org/abs/2209.04851>`_'s DeiT-S on ImageNet. There the mix
    block's learning rate falls to 1e-4 instead of 1e-5, see :class:`smmix_mm.GroupedCosineAnnealingLR`, and the best of
    the four heads (both, of the model and of the momentum model) is reported. Here the stock head predicts.

    **Cost.** A forward of the momentum model on the unmixed images, its forward and backward to the images on the mixed
    ones, and the model itself on twice the images: together more than three steps without mixing.

    Args:
        alpha (float): Shares come from Beta(alpha, alpha). Defaults to 2.0.
        layer (int, optional): Layer of the features, from 1: a block of a ViT, a stage of PVT or Swin. Defaults to
            None, the middle one: DeiT-S has block 6 of 12, Swin-T the 7 x 7 map of stage 3 of 4.
        momentum (float): Weight of the model in an update of the momentum model, at the start of the run, in (0, 1).
            This is mmengine's definition of momentum; the paper gives 1 minus it. Defaults to 0.001.
        end_momentum (float): The same at the end of the run, in [0, 1). Defaults to 0.00001.
        learn_prob (float): Probability that the mix block learns in a step, in [0, 1]. Defaults to 0.8.
        mask_weight (float): :math:`\beta` at the start of the run, at least 0. Defaults to 0.1.
        mask_margin (float): Distance of the masks' mean from :math:`\lambda` that costs nothing, at least 0. Defaults
            to 0.1.
        min_share (float): Share of an image below which plain Mixup is used, in [0, 0.5]. Defaults to 0.08.
        mix_block (dict, optional): Config of the mix block without ``in_channels``, which follows from the backbone;
            its ``type`` may be left out. Defaults to None, :class:`smmix_mm.MixBlock` with its own defaults.

    Raises:
        ValueError: If a setting is outside its range, or the backbone has no such layer.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        layer: int | None = None,
        momentum: float = 0.001,
        end_momentum: float = 0.00001,
        learn_prob: float = 0.8,
        mask_weight: float = 0.1,
        mask_margin: float = 0.1,
        min_share: float = 0.08,
        mix_block: dict | None = None,
    ) -> None:
        super().__init__()
        self.alpha = check_number('AutoMix', 'alpha', alpha, *POSITIVE)
        self.layer = layer
        self.momentum = check_number('AutoMix', 'momentum', momentum, 'a number in (0, 1)', lambda part: 0 < part < 1)
        self.end_momentum = check_number(
            'AutoMix', 'end_momentum', end_momentum, 'a number in [0, 1)', lambda part: 0 <= part < 1
        )
        self.learn_prob = check_number(
            'AutoMix', 'learn_prob', learn_prob, 'a number in [0, 1]', lambda part: 0 <= part <= 1
        )
        self.mask_weight = check_number('AutoMix', 'mask_weight', mask_weight, *NOT_NEGATIVE)
        self.mask_margin = check_number('AutoMix', 'mask_margin', mask_margin, *NOT_NEGATIVE)
        self.min_share = check_number(
            'AutoMix', 'min_share', min_share, 'a number in [0, 0.5]', lambda share: 0 <= share <= 0.5
        )
        self._mix_block_cfg = dict(mix_block or {})
        self.mix_block: nn.Module | None = None
        self.momentum_model: MomentumModel | None = None
        self.one_hot_head: nn.Module | None = None

    def prepare(self, model: TrainedModel) -> None:
        layer = _find_layer(model, self.layer)
        self.momentum_model = MomentumModel(model, layer)
        self.one_hot_head = copy.deepcopy(model.head)
        channels = model.adapter.layer_dims(layer)
        self.mix_block = MODELS.build({'type': 'smmix_mm.MixBlock', 'in_channels': channels, **self._mix_block_cfg})

    def before_step(self, model: TrainedModel, progress: float) -> None:
        self.momentum_model.update_parameters(model, self.find_momentum(progress))

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        features = self.momentum_model.read_layer(images)
        losses = self._mix_block_losses(images, targets, features, streams)
        share, pairs = self.draw(streams.local, images)
        with torch.no_grad():
            mixed, mask = self._mix(images, features, share, pairs)
        return MixedBatch(
            images=torch.cat([mixed, images]),
            targets=torch.cat([functional.mix_pairs(targets, share, pairs), targets]),
            share=share,
            source_mask=mask,
            losses=losses,
        )

    def losses(
        self,
        logits: Tensor,
        features: Features,
        mixed: MixedBatch,
        criterion: Criterion,
        classify_regions: RegionClassifier | None,
    ) -> dict[str, Tensor]:
        labels, one_hot = mixed.targets.chunk(2)
        return {
            'loss_cls': criterion(logits.chunk(2)[0], labels),
            'loss_one_hot': criterion(self.one_hot_head(features.pooled).chunk(2)[1], one_hot),
            **mixed.losses,
        }

    def own_heads(self) -> list[nn.Module]:
        return [self.one_hot_head]

    def draw(self, stream: np.random.Generator, images: Tensor) -> tuple[float, Tensor]:
        """Draws share and pairs of a batch; called twice in a step.

        Args:
            stream (np.random.Generator): Stream to draw from.
            images (Tensor): ``(B, C, H, W)``.

        Returns:
            tuple[float, Tensor]: The source's share, and the source ``(B,)`` of each image.
        """
        return float(stream.beta(self.alpha, self.alpha)), random_pairs(stream, len(images), images.device)

    def _mix_block_losses(
        self, images: Tensor, targets: Tensor, features: Tensor, streams: Streams
    ) -> dict[str, Tensor]:
        share, pairs = self.draw(streams.local, images)
        learns = streams.shared.random() < self.learn_prob
        # Zeros, so that no gradient is absent.
        losses = {'loss_mix_block': 0.0 * sum(parameter.sum() for parameter in self.mix_block.parameters())}
        if not (learns or self.mask_weight):
            return losses
        mask = self.mix_block(features[pairs], features, share)
        if learns:
            mixed = functional.mix_masked(images, images[pairs], mask)
            labels = functional.mix_pairs(targets, share, pairs)
            losses['loss_mix_block'] = self.momentum_model.criterion(self.momentum_model(mixed), labels)
        if self.mask_weight:
            excess = ((mask.mean() - share).abs() - self.mask_margin).clamp(min=0)
            losses['loss_mask'] = self.mask_weight * _half_cosine(streams.progress) * excess
        return losses

    def _mix(self, images: Tensor, features: Tensor, share: float, pairs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mixed images for the model, and their mask; None for plain Mixup."""
        if self._is_plain(share):
            return torch.lerp(images, images[pairs], share), None
        mask = self.mix_block(features[pairs], features, share)
        return functional.mix_masked(images, images[pairs], mask), mask

    def find_momentum(self, progress: float) -> float:
        """Weight of the model in an update of the momentum model.

        Args:
            progress (float): Completed part of the run, from 0 to 1.
        """
        if progress < CONSTANT_MOMENTUM:
            return self.momentum
        return self.end_momentum + (self.momentum - self.end_momentum) * _half_cosine(progress)

    def _is_plain(self, share: float) -> bool:
        return min(share, 1 - share) < self.min_share

    def extra_repr(self) -> str:
        return (
            f'alpha={self.alpha}, layer={self.layer}, momentum={self.momentum}, end_momentum={self.end_momentum}, '
            f'learn_prob={self.learn_prob}, mask_weight={self.mask_weight}, mask_margin={self.mask_margin}, '
            f'min_share={self.min_share}'
        )


def _half_cosine(progress: float) -> float:
    """From 1 to 0 as ``progress`` goes from 0 to 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def _find_layer(model: TrainedModel, layer: int | None) -> int:
    adapter, name = model.adapter, type(model.backbone).__name__
    if not adapter.num_layers:
        raise ValueError(
            f'AutoMix needs the features of an inner layer of {name}, but its adapter {type(adapter).__name__} cannot '
            f'read any (num_layers=0); choose another backbone or method'
        )
    if layer is None:
        return adapter.middle_layer
    if not (isinstance(layer, Integral) and 1 <= layer <= adapter.num_layers):
        raise ValueError(
            f'layer of AutoMix has to be a whole number from 1 to {adapter.num_layers}, the layers of {name}, or None, '
            f'but got {layer!r}'
        )
    return int(layer)
