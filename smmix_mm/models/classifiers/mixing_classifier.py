"""One training step of every mixing method, from images to losses."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from smmix_mm.adapters.base import build_adapter
from smmix_mm.mixing.base import MixingMethod
from smmix_mm.mixing.random_mixing import RandomMixing
from smmix_mm.models.initialization import init_transformer
from smmix_mm.registry import MODELS
from smmix_mm.structures import Motivation, RegionClassifier


@MODELS.register_module()
class MixingClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` with mixing methods that may ask the model itself before they mix.

    Backbone, neck and head stay stock: the head's classifier gives the logits, its loss is the criterion for whole
    images and for regions, evaluation is mmpretrain's own. A checkpoint loads in an ``ImageClassifier`` of the same
    parts, the region classifier ``region_head`` alone left over.

    Args:
        backbone (dict): A backbone with an adapter, see :mod:`smmix_mm.adapters`.
        neck (dict, optional): As in ``ImageClassifier``. Defaults to None.
        head (dict): A head of one linear classifier, such as ``VisionTransformerClsHead`` or ``LinearClsHead``, whose
            loss takes soft labels.
        pretrained (str, optional): As in ``ImageClassifier``. Defaults to None.
        train_cfg (dict, optional): Fields ``augments``, ``probs`` and ``same_on_all_ranks``, the arguments of
            :class:`smmix_mm.mixing.RandomMixing`. Defaults to None, which mixes nothing.
        data_preprocessor (dict, optional): As in ``ImageClassifier``; one-hot labels are turned on. Its own
            ``batch_augments`` are refused, since they would mix a second time. Defaults to None.
        published_init (bool): Whether :meth:`init_weights` starts from the initialisation that the published figures
            started from, see :func:`smmix_mm.models.init_transformer`, instead of mmpretrain's. Parts with pretrained
            weights keep them. Defaults to True.
        init_cfg (dict, optional): As in ``ImageClassifier``. Defaults to None.

    Raises:
        ValueError: If the backbone has no adapter, or the head cannot serve the methods.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        pretrained: str | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        published_init: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            pretrained=pretrained,
            data_preprocessor=_without_batch_augments(data_preprocessor),
            init_cfg=init_cfg,
        )
        self.published_init = published_init
        self.adapter = build_adapter(self.backbone)
        self.mixing = RandomMixing(**(train_cfg or {}))
        wanted = {method.region_head for method in self.mixing.methods}
        _check_head(self.head, self.adapter.embed_dims, shared='shared' in wanted)
        self.region_head = None
        if 'separate' in wanted:
            self.region_head = nn.Linear(self.adapter.embed_dims, self.head.num_classes)
        self._prepare_labels()

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """One training step: draw a method, mix, run the model on the mixed images, judge.

        Args:
            inputs (Tensor): Preprocessed images ``(B, C, H, W)``.
            data_samples (list[DataSample]): With one-hot labels ``gt_score``.

        Returns:
            dict[str, Tensor]: ``loss_cls`` and what else the method reports.
        """
        targets = torch.stack([sample.gt_score for sample in data_samples]).float()
        method, streams = self.mixing.draw()
        mixed = method(inputs, targets, self.motivate, streams)
        features = self.adapter.read(mixed.images)
        logits = self.classify(features.feats)
        losses = method.losses(logits, features, mixed, self.criterion, self._region_classifier(method))
        return self._with_idle_region_head(losses, method)

    @torch.no_grad()
    def motivate(
        self, images: Tensor, attention: bool = True, logits: bool = True, autocast: bool = True
    ) -> Motivation:
        """Asks the model under training about unmixed images: evaluation mode, no gradients, and no trace left.

        Args and returns: as :class:`smmix_mm.mixing.base.Motivate`.
        """
        with _evaluating(self), _untraced_autocast(images.device.type, autocast):
            if not (attention or logits):
                motivation = Motivation(self.adapter.grid(images))
            else:
                features = self.adapter.read(images, attention=attention)
                scores = self.classify(features.feats) if logits else None
                motivation = Motivation(features.grid, features.attention, scores)
        self._check_alignment(images, motivation.grid)
        return motivation

    def classify(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits ``(B, classes)`` of the backbone's output, by the stock neck and head."""
        return self.head(self.neck(feats) if self.with_neck else feats)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The stock head's loss of logits ``(B, classes)`` under soft targets ``(B, classes)``."""
        return self.head.loss_module(logits, targets, avg_factor=len(logits))

    def init_weights(self) -> None:
        """Published initialisation for every part that brings no pretrained weights."""
        fresh = not self.is_init
        if fresh and self.published_init and self.region_head is not None:
            init_transformer(self.region_head)
        super().init_weights()
        if fresh and self.published_init and not _is_pretrained(self):
            for part in (self.backbone, self.neck, self.head):
                if part is not None and not any(_is_pretrained(module) for module in part.modules()):
                    init_transformer(part)
            print_log('Parts without pretrained weights now have the published initialisation instead', 'current')

    def _check_alignment(self, images: Tensor, grid: tuple[int, int]) -> None:
        """A backbone that pads images or leaves pixels out has tokens that are not where an even split puts them."""
        stride, size = self.adapter.stride, tuple(images.shape[-2:])
        if size != (grid[0] * stride[0], grid[1] * stride[1]):
            raise ValueError(
                f'sides of the images have to be multiples of {stride[0]} x {stride[1]} pixels, the stride of '
                f'{type(self.backbone).__name__}, for regions to be mixed, but got {size[0]} x {size[1]}'
            )

    def _prepare_labels(self) -> None:
        """Has the data preprocessor make one-hot labels, and check them before."""
        num_classes = self.head.num_classes
        found = getattr(self.data_preprocessor, 'num_classes', None)
        if found not in (None, num_classes):
            raise ValueError(f"num_classes of data_preprocessor has to be the head's, {num_classes}, but got {found}")
        self.data_preprocessor.num_classes = num_classes
        self.data_preprocessor.to_onehot = True
        self.data_preprocessor.register_forward_pre_hook(self._check_labels, with_kwargs=True)

    def _region_classifier(self, method: MixingMethod) -> RegionClassifier | None:
        if method.region_head == 'shared':
            return lambda means: self.head((means,))
        return self.region_head if method.region_head == 'separate' else None

    def _with_idle_region_head(self, losses: dict[str, Tensor], method: MixingMethod) -> dict[str, Tensor]:
        """In steps that leave the region classifier out, its gradient is zero, not absent.

        DDP then needs no ``find_unused_parameters``, and accumulation and weight decay treat all steps alike.
        """
        if self.region_head is not None and method.region_head != 'separate':
            name = next(iter(losses))
            losses[name] = losses[name] + 0.0 * sum(parameter.sum() for parameter in self.region_head.parameters())
        return losses

    def _check_labels(self, preprocessor: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before labels leave the host: on a GPU a wrong one would be an assertion without a name."""
        num_classes = self.head.num_classes
        data = args[0] if args else kwargs['data']
        samples = [sample for sample in data.get('data_samples') or [] if 'gt_label' in sample]
        labels = [sample.gt_label for sample in samples]
        if not labels or any(label.device.type != 'cpu' or not label.numel() for label in labels):
            return
        lowest, highest = torch.cat(labels).aminmax()
        if lowest < 0 or highest >= num_classes:
            wrong = next(i for i, label in enumerate(labels) if label.min() < 0 or label.max() >= num_classes)
            raise ValueError(
                f'labels have to be between 0 and {num_classes - 1} for num_classes={num_classes} of the head, but '
                f'{samples[wrong].get("img_path", "a sample")} has {labels[wrong].tolist()}'
            )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, module by module, so that each gets back the mode it had (frozen stages, say)."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _untraced_autocast(device_type: str, enabled: bool) -> Iterator[None]:
    """Goes on under the training's autocast, or not, without touching its cache of cast weights.

    On torch 2.1 a pass without gradients fills that cache with weights cut off from the graph; the training forward
    after it would reuse them and get no gradients at all.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with nullcontext() if enabled else torch.autocast(device_type, enabled=False, cache_enabled=False):
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)


def _is_pretrained(module: nn.Module) -> bool:
    configs = getattr(module, 'init_cfg', None) or []
    configs = [configs] if isinstance(configs, dict) else configs
    return any(config['type'] in ('Pretrained', PretrainedInit) for config in configs)


def _without_batch_augments(data_preprocessor: dict | nn.Module | None) -> dict | nn.Module:
    """``ImageClassifier`` would hand ``train_cfg`` to the data preprocessor, which would mix a second time."""
    if isinstance(data_preprocessor, nn.Module):
        augments = getattr(data_preprocessor, 'batch_augments', None)
    else:
        data_preprocessor = dict(data_preprocessor or {})
        augments = data_preprocessor.setdefault('batch_augments', None)
    if augments:
        raise ValueError(
            f'batch_augments of the data_preprocessor of MixingClassifier have to be empty, because train_cfg.augments '
            f'are mixed by the classifier, but got {augments}'
        )
    return data_preprocessor


def _check_head(head: nn.Module | None, embed_dims: int, shared: bool) -> None:
    """Tries the head's criterion, and its classifier where regions share it, before training starts."""
    name = type(head).__name__
    if not (hasattr(head, 'num_classes') and isinstance(getattr(head, 'loss_module', None), nn.Module)):
        raise ValueError(
            f'head of MixingClassifier has to be one with num_classes and a loss_module, such as LinearClsHead or '
            f'VisionTransformerClsHead, but got {name}'
        )
    classes = head.num_classes
    logits, targets = torch.zeros(2, classes), torch.full((2, classes), 1 / classes)
    try:
        # A copy, because some criteria count what they see.
        loss = copy.deepcopy(head.loss_module)(logits, targets, avg_factor=2)
        fits = loss.ndim == 0
    except Exception as error:
        raise ValueError(
            f'loss {type(head.loss_module).__name__} of {name} cannot take soft labels: {error}'
        ) from error
    if not fits:
        raise ValueError(
            f'loss {type(head.loss_module).__name__} of {name} has to return a scalar, but got {tuple(loss.shape)}'
        )
    if not shared:
        return
    try:
        with torch.no_grad():
            scores = head((torch.zeros(2, embed_dims),))
        fits = scores.shape == (2, classes)
    except Exception as error:
        raise ValueError(
            f"region_head='shared' needs a head that classifies mean tokens of {embed_dims} channels, but {name} "
            f"cannot: {error}; use region_head='separate'"
        ) from error
    if not fits:
        raise ValueError(f"region_head='shared' needs a head that gives (B, {classes}) logits, but {name} does not")
