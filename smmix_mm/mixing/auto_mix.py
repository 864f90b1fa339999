"""AutoMix: a network that is trained along says how much of each image is seen where."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmpretrain.models.utils import CosineEMA
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.adapters.base import build_adapter
from smmix_mm.registry import BATCH_AUGMENTS, MODELS
from smmix_mm.structures import Criterion, Features, MixedBatch, RegionClassifier

from .base import MixingMethod, Motivate
from .streams import Streams, random_pairs

if TYPE_CHECKING:
    from smmix_mm.models.classifiers.mixing_classifier import MixingClassifier


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
        _check('alpha', alpha, 'a positive number', lambda value: 0 < value < math.inf)
        _check('momentum', momentum, 'in (0, 1)', lambda value: 0 < value < 1)
        _check('end_momentum', end_momentum, 'in [0, 1)', lambda value: 0 <= value < 1)
        _check('mask_weight', mask_weight, 'at least 0', lambda value: 0 <= value < math.inf)
        _check('mask_margin', mask_margin, 'at least 0', lambda value: 0 <= value < math.inf)
        _check('min_share', min_share, 'in [0, 0.5]', lambda value: 0 <= value <= 0.5)
        self.alpha = float(alpha)
        self.layer = layer
        self.momentum = float(momentum)
        self.end_momentum = float(end_momentum)
        self.mask_weight = float(mask_weight)
        self.mask_margin = float(mask_margin)
        self.min_share = float(min_share)
        self._mix_block_cfg = dict(mix_block or {})
        self.mix_block: nn.Module | None = None
        self.momentum_model: MomentumModel | None = None
        # In a tuple the classifier around this method is known to it without being a part of it.
        self._model: tuple[MixingClassifier, ...] = ()

    def prepare(self, model: 'MixingClassifier') -> None:
        layer = _find_layer(model, self.layer)
        self._model = (model,)
        self.momentum_model = MomentumModel(model, layer, self.momentum, self.end_momentum)
        channels = model.adapter.layer_dims(layer)
        self.mix_block = MODELS.build({'type': 'smmix_mm.MixBlock', 'in_channels': channels, **self._mix_block_cfg})

    def forward(self, images: Tensor, targets: Tensor, motivate: Motivate, streams: Streams) -> MixedBatch:
        self.momentum_model.update_parameters(self._model[0])
        features = self.momentum_model.read_layer(images)
        losses = self._mix_block_losses(images, targets, features, streams)
        share, pairs = self.draw(streams.local, images)
        with torch.no_grad():
            mixed, _ = self._mix(images, features, share, pairs)
        return MixedBatch(
            images=torch.cat([mixed, images]),
            targets=torch.cat([share * targets[pairs] + (1 - share) * targets, targets]),
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
        labels = share * targets[pairs] + (1 - share) * targets
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

    def _is_plain(self, share: float) -> bool:
        return min(share, 1 - share) < self.min_share

    def extra_repr(self) -> str:
        return (
            f'alpha={self.alpha}, layer={self.layer}, momentum={self.momentum}, end_momentum={self.end_momentum}, '
            f'mask_weight={self.mask_weight}, mask_margin={self.mask_margin}, min_share={self.min_share}'
        )


class MomentumModel(CosineEMA):
    """The moving average of a classifier's backbone, neck and head: frozen, and always in evaluation mode.

    Of mmpretrain's it keeps parameters, names and cosine. It differs in when it moves to where on that cosine, by the
    run's iterations and not by its own updates, which are fewer; and in that an update does not wait for the device.

    Args:
        model (MixingClassifier): Copied. Its later weights come with each update.
        layer (int): The layer to read.
        momentum (float): Part of the model that is taken over in an update, at the start of the run.
        end_momentum (float): The same at its end.
    """

    def __init__(self, model: 'MixingClassifier', layer: int, momentum: float, end_momentum: float) -> None:
        super().__init__(_parts(model), momentum, end_momentum)
        # Built here, since the copies of the model's hooks answer to the model's adapter alone.
        self.adapter = build_adapter(self.module['backbone'])
        self.layer = layer
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)``; gradients reach the images, not the parameters."""
        feats = self.module['backbone'](images)
        return self.module['head'](self.module['neck'](feats) if 'neck' in self.module else feats)

    # No care for autocast's cache is needed: it holds weights that need gradients, and these do not.
    @torch.no_grad()
    def read_layer(self, images: Tensor) -> Tensor:
        """Features ``(B, C', h', w')`` of the layer."""
        return self.adapter.read_layer(images, self.layer)

    @torch.no_grad()
    def update_parameters(self, model: 'MixingClassifier') -> None:
        """Moves towards the model; by the first update, all the way, to the same bits.

        Args:
            model (MixingClassifier): The one that was copied.
        """
        # Chosen on the device: 1 the first time.
        part = (self.steps == 0).float().clamp(min=self._momentum())
        trained = _parts(model)
        parameters, buffers = dict(trained.named_parameters()), dict(trained.named_buffers())
        # Not through .data: PVT keeps resized position embeddings by the version of the original ones.
        for name, parameter in self.module.named_parameters():
            parameter.lerp_(parameters[name], part.to(parameter.dtype))
        for name, buffer in self.module.named_buffers():
            buffer.copy_(buffers[name])
        self.steps += 1

    def train(self, mode: bool = True) -> 'MomentumModel':
        """Evaluation mode, whatever is asked for."""
        return super().train(False)

    def _momentum(self) -> float:
        cosine = (math.cos(math.pi * _progress()) + 1) / 2
        return self.end_momentum + (self.momentum - self.end_momentum) * cosine


def _parts(model: 'MixingClassifier') -> nn.ModuleDict:
    parts = {'backbone': model.backbone, 'neck': model.neck if model.with_neck else None, 'head': model.head}
    return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def _progress() -> float:
    """How much of the run is over, from 0 to 1; 0 where no run is known of."""
    hub = MessageHub.get_current_instance()
    return min(hub.get_info('iter', 0) / (hub.get_info('max_iters') or math.inf), 1.0)


def _find_layer(model: 'MixingClassifier', layer: int | None) -> int:
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


def _check(name: str, value: float, needed: str, fits: Callable[[float], bool]) -> None:
    if not (isinstance(value, Real) and fits(value)):
        raise ValueError(f'{name} of AutoMix has to be {needed}, but got {value!r}')
