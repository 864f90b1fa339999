"""One training step of every mixing method, from images to losses."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.adapters.base import build_adapter
from smmix_mm.compat import untraced_autocast
from smmix_mm.mixing.base import MixingMethod
from smmix_mm.mixing.random_mixing import RandomMixing
from smmix_mm.models.initialization import init_transformer
from smmix_mm.models.pretrained import is_pretrained, load_backbone, with_strict_loading
from smmix_mm.registry import MODELS
from smmix_mm.structures import Motivation, RegionClassifier

from .motivation import classify, read_motivation
from .teacher import Teacher


@MODELS.register_module()
class MixingClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` with mixing methods that may ask the model itself before they mix.

    Backbone, neck and head stay stock: the head's classifier gives the logits, its loss is the criterion for whole
    images and for regions, evaluation is mmpretrain's own. A checkpoint loads in an ``ImageClassifier`` of the same
    parts; left over are the region classifier ``region_head`` and the parameters ``mixing`` of methods that have some.

    Args:
        backbone (dict): A backbone with an adapter, see :mod:`smmix_mm.adapters`.
        neck (dict, optional): As in ``ImageClassifier``. Defaults to None.
        head (dict): A head of one linear classifier, such as ``VisionTransformerClsHead`` or ``LinearClsHead``, whose
            loss takes soft labels.
        pretrained (str, optional): As in ``ImageClassifier``. Defaults to None.
        teacher (dict | nn.Module, optional): A frozen classifier, see
            :class:`smmix_mm.models.classifiers.teacher.Teacher`, that motivates in the place of this model. Its weights
            are loaded by :meth:`init_weights` and are no part of this model's. Defaults to None.
        train_cfg (dict, optional): Fields ``augments``, ``probs`` and ``same_on_all_ranks``, the arguments of
            :class:`smmix_mm.mixing.RandomMixing`. Defaults to None, which mixes nothing.
        data_preprocessor (dict, optional): As in ``ImageClassifier``; one-hot labels are turned on. Its own
            ``batch_augments`` are refused, since they would mix a second time. Defaults to None.
        published_init (bool): Whether :meth:`init_weights` starts from the initialisation that the published figures
            started from, see :func:`smmix_mm.models.init_transformer`, instead of mmpretrain's. Parts with pretrained
            weights keep them. Defaults to True.
        channels_last (bool): Whether weights of convolutions, the teacher's too, and images lie in memory with their
            channels last. Defaults to False.
        init_cfg (dict, optional): As in ``ImageClassifier``. Defaults to None.

    Raises:
        ValueError: If the backbone has no adapter, the head cannot serve the methods, or a method needs a teacher that
            is not there or lacks what it needs.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        pretrained: str | None = None,
        teacher: dict | nn.Module | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        published_init: bool = True,
        channels_last: bool = False,
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
        self.teacher = None if teacher is None else Teacher(teacher)
        self._check_teacher()
        for method in self.mixing.methods:
            method.prepare(self)
        if channels_last:
            self._put_channels_last()

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """One training step: draw a method, mix, run the model on the mixed images, judge.

        In evaluation mode nothing is mixed: the loss is the stock classifier's.

        Args:
            inputs (Tensor): Preprocessed images ``(B, C, H, W)``.
            data_samples (list[DataSample]): With one-hot labels ``gt_score``.

        Returns:
            dict[str, Tensor]: ``loss_cls`` and what else the method reports; in evaluation mode the head's own.
        """
        if not self.training:
            return super().loss(inputs, data_samples)
        targets = torch.stack([sample.gt_score for sample in data_samples]).float()
        method, streams = self.mixing.draw()
        mixed = method(inputs, targets, self.motivate, streams)
        features = self.adapter.read(mixed.images, class_attention=method.reads_class_attention)
        logits = self.classify(features.feats)
        mixed = replace(mixed, targets=method.relabel(features, mixed))
        losses = method.losses(logits, features, mixed, self.criterion, self._region_classifier(method))
        return self._with_idle_parameters(losses, logits, method)

    @torch.no_grad()
    def motivate(
        self,
        images: Tensor,
        attention: bool = True,
        logits: bool = True,
        *,
        by: str | None = None,
        own_grid: bool = False,
        **how: Any,
    ) -> Motivation:
        """Asks the teacher, or the model under training, about unmixed images, and leaves no trace.

        Args and returns: as :class:`smmix_mm.mixing.base.Motivate`.

        Raises:
            ValueError: If the images cannot be mixed region by region, or the model that is asked cannot run on them.
        """
        if by == 'teacher' and self.teacher is None:
            raise ValueError(f"{type(self).__name__} has no teacher, but by='teacher' was asked for")
        with untraced_autocast(images.device.type):
            if not own_grid:
                grid = self.adapter.grid(images)
                self._check_alignment(images, grid)
            if by == 'model' or self.teacher is None:
                motivation = read_motivation(self, self.adapter, images, attention, logits, **how)
            else:
                motivation = self.teacher.motivate(images, attention, logits, **how)
        if not own_grid:
            motivation.grid = grid
            if attention:
                motivation.attention = functional.resample_scores(motivation.attention, grid)
        return motivation

    def classify(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits ``(B, classes)`` of the backbone's output, by the stock neck and head."""
        return classify(self, feats)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The stock head's loss of logits ``(B, classes)`` under soft targets ``(B, classes)``."""
        return self.head.loss_module(logits, targets, avg_factor=len(logits))

    def init_weights(self) -> None:
        """Published initialisation for every part that brings no pretrained weights, and the teacher's weights."""
        if self.teacher is not None:
            self.teacher.load()
        fresh = not self.is_init
        if fresh and self.published_init:
            for head in [self.region_head, *(head for method in self.mixing.methods for head in method.own_heads())]:
                if head is not None:
                    init_transformer(head)
        with _backbone_loaded_last(self.backbone):
            super().init_weights()
        if fresh and self.published_init and not is_pretrained(self.init_cfg):
            for part in (self.backbone, self.neck, self.head):
                if part is not None and not any(
                    is_pretrained(getattr(module, 'init_cfg', None)) for module in part.modules()
                ):
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
            raise ValueError(
                f"num_classes of data_preprocessor has to be the head's, {num_classes}, but got {found}; so has "
                f'num_classes of head.loss'
            )
        self.data_preprocessor.num_classes = num_classes
        self.data_preprocessor.to_onehot = True
        self.data_preprocessor.register_forward_pre_hook(self._check_labels, with_kwargs=True)

    def _put_channels_last(self) -> None:
        """Here and not later, since DDP lays out its buckets by the layout that it finds."""
        for model in (self, *([] if self.teacher is None else [self.teacher.model])):
            model.to(memory_format=torch.channels_last)
        self.data_preprocessor.register_forward_hook(_with_channels_last)

    def _region_classifier(self, method: MixingMethod) -> RegionClassifier | None:
        if method.region_head == 'shared':
            return lambda means: self.head((means,))
        return self.region_head if method.region_head == 'separate' else None

    def _with_idle_parameters(
        self, losses: dict[str, Tensor], logits: Tensor, method: MixingMethod
    ) -> dict[str, Tensor]:
        """Parameters that a step leaves out get a gradient that is zero, not absent.

        Such are the region classifier, those of other methods, and the head where no loss looks at the logits. DDP then
        needs no ``find_unused_parameters``, and accumulation and weight decay treat all steps alike.
        """
        idle = [parameter for other in self.mixing.methods if other is not method for parameter in other.parameters()]
        if self.region_head is not None and method.region_head != 'separate':
            idle += self.region_head.parameters()
        # One logit and not their sum, which overflows in half precision.
        nothing = [parameter.sum() for parameter in idle if parameter.requires_grad] + [logits[0, 0].float()]
        name = next(iter(losses))
        losses[name] = losses[name] + 0.0 * sum(nothing)
        return losses

    def _check_teacher(self) -> None:
        for method in self.mixing.methods:
            name = type(method).__name__
            if method.needs_teacher and self.teacher is None:
                raise ValueError(
                    f'{name} needs a teacher for {", ".join(method.asks_teacher)}: set teacher=dict('
                    f"type='mmpretrain.ImageClassifier', ..., init_cfg=dict(type='Pretrained', checkpoint=...)) of "
                    f'{type(self).__name__}, but got None'
                )
            if self.teacher is not None:
                self.teacher.check(method.asks_teacher, name, self.head.num_classes, self.data_preprocessor)

    def _check_labels(self, preprocessor: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before labels leave the host: on a GPU a wrong one would be an assertion without a name."""
        num_classes = self.head.num_classes
        data = args[0] if args else kwargs['data']
        training = args[1] if len(args) > 1 else kwargs.get('training', False)
        everything = data.get('data_samples') or []
        if training:
            _check_single_labels(everything)
        samples = [sample for sample in everything if 'gt_label' in sample]
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


def _check_single_labels(samples: list[DataSample]) -> None:
    for sample in samples:
        found = sample.get('gt_label')
        if found is None and sample.get('gt_score') is None:
            raise ValueError(
                f'images need labels to be trained on, but {sample.get("img_path", "a sample")} has none: neither '
                f'gt_label nor gt_score; set with_label=True in train_dataloader.dataset'
            )
        if found is not None and found.numel() != 1:
            raise ValueError(
                f'MixingClassifier needs one label an image, but {sample.get("img_path", "a sample")} has '
                f'{found.tolist()}: shares and the consistency loss mean nothing for several labels'
            )


@contextmanager
def _backbone_loaded_last(backbone: BaseModule) -> Iterator[None]:
    """Has the weights that the backbone's ``init_cfg`` names loaded whole, or not at all, after all initialisation.

    mmengine's own loading takes what fits and logs the rest: of a classifier's checkpoint nothing fits a stock backbone
    without ``prefix``.
    """
    written = getattr(backbone, 'init_cfg', None)
    if backbone.is_init or not is_pretrained(written):
        yield
        return
    *others, pretrained = with_strict_loading(written)
    backbone.init_cfg = others or None
    try:
        yield
    finally:
        backbone.init_cfg = written
    load_backbone(backbone, pretrained['checkpoint'], pretrained['prefix'])


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


def _with_channels_last(_preprocessor: nn.Module, _args: tuple, data: dict) -> dict:
    return {**data, 'inputs': data['inputs'].contiguous(memory_format=torch.channels_last)}


def _check_head(head: nn.Module | None, embed_dims: int, shared: bool) -> None:
    """Tries the head's criterion, and its classifier where regions share it, before training starts."""
    name = type(head).__name__
    if not (hasattr(head, 'num_classes') and isinstance(getattr(head, 'loss_module', None), nn.Module)):
        raise ValueError(
            f'head of MixingClassifier has to be one with num_classes and a loss_module, such as LinearClsHead or '
            f'VisionTransformerClsHead, but got {name}'
        )
    classes = head.num_classes
    of_loss = getattr(head.loss_module, 'num_classes', None)
    if of_loss not in (None, classes):
        raise ValueError(
            f'num_classes of head is {classes}, but head.loss.num_classes is {of_loss}; both, and num_classes of '
            f'data_preprocessor, have to be the number of classes'
        )
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
