"""AutoMix: a network that is trained along says how much of each image is seen where."""

import math
from numbers import Integral

import numpy as np
import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.registry import BATCH_AUGMENTS, MODELS
from smmix_mm.streams import Streams, random_pairs
from smmix_mm.structures import Criterion, Features, MixedBatch, RegionClassifier

from .base import MixingMethod, Motivate, TrainedModel
from .checks import NOT_NEGATIVE, POSITIVE, check_number
from .momentum_model import MomentumModel


@BATCH_AUGMENTS.register_module()
class AutoMix(MixingMethod):
    r"""Mixes by a mask that a mix block predicts from features of both images, and trains that block along.

    `AutoMix: Unveiling the Power of Mixup for Stronger Classifiers <https://arxiv.org/abs/2103.13027>`_ (ECCV 2022).

    A momentum model, the moving average of backbone, neck and head, gives the features that one of its layers puts out
    for the unmixed images. The mix block turns those of a pair and the source's share :math:`\lambda` into a mask of
    the layer's grid, the source's part at each position, brought to the pixels by nearest neighbour. Twice in each
    step :math:`\lambda` is drawn from Beta(alpha, alpha) and the pairs as a random permutation of the batch:

    - By the first draw the mix block learns. The momentum model, which is frozen but lets gradients through, classifies
      the images mixed so: ``loss_mix_block``. The mean :math:`\bar s` of each mask is tied to :math:`\lambda`:
      ``loss_mask``, :math:`\beta \max(|\bar s - \lambda| - margin, 0)`, mean over the batch, where :math:`\beta` falls
      linearly from ``mask_weight`` to 0 over the run.
    - By the second draw, without gradients to the mask, the model learns: ``loss_cls`` of the mixed images and
      ``loss_one_hot`` of the unmixed ones, with equal weights. The backbone runs once, on both together: images and
      labels of the mixed batch are ``2 * B``, mixed ones first.

    Labels are :math:`\lambda y_A + (1 - \lambda) y_B` with the drawn :math:`\lambda`, as in the paper, whatever the
    mask's mean. A draw that leaves one of the images a share below ``min_share`` mixes by plain Mixup; if it is the
    first, nothing is there for the mix block to learn, and its two losses are 0.

    **The momentum model** stays in evaluation mode, is a part of the checkpoint and moves in steps of AutoMix alone,
    once per step, before it is used: by the first step it becomes the model as it is then. Progress of the run, for the
    momentum's cosine and for :math:`\beta`, is that of mmengine's iterations; a training loop of one's own has none and
    keeps the values at the start, or, in a process in which a run has ended, those at its end. With
    ``same_on_all_ranks=False`` of the classifier, ranks draw AutoMix in different steps and their momentum models part;
    the checkpoint has that of the first rank.

    **Cost.** A forward of the momentum model on the unmixed images, a forward and a backward down to the image of it,
    and the model itself on twice the images: together more than three steps without mixing.

    Args:
        alpha (float): Shares come from Beta(alpha, alpha). Defaults to 2.0.
        layer (int, optional): Layer of the features, from 1; of a ViT a block, of PVT a stage. Defaults to None, the
            middle one: DeiT-S has block 6 of 12.
        momentum (float): What part of the model the momentum model takes over in a step, at the start of the run, in
            (0, 1). This is mmengine's sense of the word; the paper gives 1 minus it. Defaults to 0.001.
        end_momentum (float): The same at the end of the run, in [0, 1); between them it follows half a cosine.
            Defaults to 0.00001.
        mask_weight (float): :math:`\beta` at the start of the run, at least 0. Defaults to 0.1.
        mask_margin (float): How far a mask's mean may be from :math:`\lambda` at no cost, at least 0. Defaults to 0.1.
        min_share (float): See above; in [0, 0.5]. Defaults to 0.08.
        mix_block (dict, optional): Config of the mix block but for ``in_channels``, which follow from the backbone;
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
        self.mask_weight = check_number('AutoMix', 'mask_weight', mask_weight, *NOT_NEGATIVE)
        self.mask_margin = check_number('AutoMix', 'mask_margin', mask_margin, *NOT_NEGATIVE)
        self.min_share = check_number(
            'AutoMix', 'min_share', min_share, 'a number in [0, 0.5]', lambda share: 0 <= share <= 0.5
        )
        self._mix_block_cfg = dict(mix_block or {})
        self.mix_block: nn.Module | None = None
        self.momentum_model: MomentumModel | None = None
        # In a tuple the classifier around this method is known to it without being a part of it.
        self._model: tuple[TrainedModel, ...] = ()

    def prepare(self, model: TrainedModel) -> None:
        layer = _find_layer(model, self.layer)
        self._model = (model,)
        self.momentum_model = MomentumModel(model, layer)
        channels = model.adapter.layer_dims(layer)
        self.mix_block = MODELS.build({'type': 'smmix_mm.MixBlock', 'in_channels': channels, **self._mix_block_cfg})

    def forward(self, images: Tensor, targets: Tensor, motivate: Motivate, streams: Streams) -> MixedBatch:
        self.momentum_model.update_parameters(self._model[0], self._momentum())
        features = self.momentum_model.read_layer(images)
        losses = self._mix_block_losses(images, targets, features, streams)
        share, pairs = self.draw(streams.local, images)
        with torch.no_grad():
            mixed, _ = self._mix(images, features, share, pairs)
        return MixedBatch(
            images=torch.cat([mixed, images]),
            targets=torch.cat([functional.mix_pairs(targets, share, pairs), targets]),
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
        mixed_logits, unmixed_logits = logits.chunk(2)
        labels, one_hot = mixed.targets.chunk(2)
        return {
            'loss_cls': criterion(mixed_logits, labels),
            'loss_one_hot': criterion(unmixed_logits, one_hot),
            **mixed.losses,
        }

    def draw(self, stream: np.random.Generator, images: Tensor) -> tuple[float, Tensor]:
        """Draws how and with what a batch is mixed; called twice in a step.

        Args:
            stream (np.random.Generator): Where the draw comes from.
            images (Tensor): ``(B, C, H, W)``.

        Returns:
            tuple[float, Tensor]: The source's share, and the source ``(B,)`` of each image.
        """
        return float(stream.beta(self.alpha, self.alpha)), random_pairs(stream, len(images), images.device)

    def _mix_block_losses(
        self, images: Tensor, targets: Tensor, features: Tensor, streams: Streams
    ) -> dict[str, Tensor]:
        share, pairs = self.draw(streams.local, images)
        if self._is_plain(share):
            nothing = 0.0 * sum(parameter.sum() for parameter in self.mix_block.parameters())
            return {'loss_mix_block': nothing} | ({'loss_mask': nothing} if self.mask_weight else {})
        mixed, mask = self._mix(images, features, share, pairs)
        labels = functional.mix_pairs(targets, share, pairs)
        losses = {'loss_mix_block': self._model[0].criterion(self.momentum_model(mixed), labels)}
        if self.mask_weight:
            excess = ((mask.mean(dim=(1, 2)) - share).abs() - self.mask_margin).clamp(min=0)
            losses['loss_mask'] = self.mask_weight * (1 - _progress()) * excess.mean()
        return losses

    def _mix(self, images: Tensor, features: Tensor, share: float, pairs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mixed images, and the masks ``(B, h, w)`` unless this is plain Mixup."""
        if self._is_plain(share):
            return torch.lerp(images, images[pairs], share), None
        mask = self.mix_block(features[pairs], features, share)
        return functional.mix_masked(images, images[pairs], mask), mask

    def _momentum(self) -> float:
        cosine = (math.cos(math.pi * _progress()) + 1) / 2
        return self.end_momentum + (self.momentum - self.end_momentum) * cosine

    def _is_plain(self, share: float) -> bool:
        return min(share, 1 - share) < self.min_share

    def extra_repr(self) -> str:
        return (
            f'alpha={self.alpha}, layer={self.layer}, momentum={self.momentum}, end_momentum={self.end_momentum}, '
            f'mask_weight={self.mask_weight}, mask_margin={self.mask_margin}, min_share={self.min_share}'
        )


def _progress() -> float:
    """How much of the run is over, from 0 to 1; 0 where no run is known of."""
    hub = MessageHub.get_current_instance()
    return min(hub.get_info('iter', 0) / (hub.get_info('max_iters') or math.inf), 1.0)


def _find_layer(model: TrainedModel, layer: int | None) -> int:
    adapter, name = model.adapter, type(model.backbone).__name__
    if not adapter.num_layers:
        raise ValueError(
            f'AutoMix needs the features of a layer inside of {name}, but its adapter {type(adapter).__name__} has '
            f'num_layers=0: it reads none; choose another backbone or method'
        )
    if layer is None:
        return adapter.middle_layer
    if not (isinstance(layer, Integral) and 1 <= layer <= adapter.num_layers):
        raise ValueError(
            f'layer of AutoMix has to be a whole number from 1 to {adapter.num_layers}, the layers of {name}, or None, '
            f'but got {layer!r}'
        )
    return int(layer)
