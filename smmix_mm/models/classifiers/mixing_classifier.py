"""One training step of every mixing method, from images to losses."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.adapters.base import build_adapter
from smmix_mm.compat import uncached_autocast
from smmix_mm.mixing.base import MixingMethod
from smmix_mm.mixing.random_mixing import RandomMixing
from smmix_mm.models.initialization import init_transformer
from smmix_mm.models.pretrained import is_pretrained, load_backbone, with_strict_loading
from smmix_mm.registry import MODELS
from smmix_mm.streams import Streams
from smmix_mm.structures import MixedBatch, Motivation, Question, RegionClassifier, settle_questions

from .checks import check_alignment, check_head, check_scores, check_teacher, set_one_hot_labels, without_batch_augments
from .motivation import ask, count_classes, pool
from .teacher import Teacher


@MODELS.register_module()
class MixingClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` with mixing methods that may ask the model itself before they mix.

    Backbone, neck and head stay stock: the head's classifier gives the logits, its loss is the criterion for whole
    images and for regions, and evaluation is mmpretrain's own. A checkpoint loads in an ``ImageClassifier`` of the
    same parts, which ignores the region classifier ``region_head`` and the methods' own parameters ``mixing``.

    Args:
        backbone (dict): A backbone with an adapter, or any that ends in a feature map, see :mod:`smmix_mm.adapters`.
        neck (dict, optional): As in ``ImageClassifier``. Defaults to None.
        head (dict): A head of one linear classifier, such as ``VisionTransformerClsHead`` or ``LinearClsHead``, whose
            loss takes soft labels.
        pretrained (str, optional): As in ``ImageClassifier``. Defaults to None.
        teacher (dict | nn.Module, optional): A frozen classifier, see
            :class:`smmix_mm.models.classifiers.teacher.Teacher`, that gives the motivation instead of this model. Its
            weights are loaded by :meth:`init_weights` and are not part of this model's. Defaults to None.
        train_cfg (dict, optional): Fields ``augments``, ``probs`` and ``same_on_all_ranks``, the arguments of
            :class:`smmix_mm.mixing.RandomMixing`. Defaults to None, which mixes nothing.
        data_preprocessor (dict, optional): As in ``ImageClassifier``; one-hot labels are turned on. Its own
            ``batch_augments`` are refused, since they would mix a second time. Defaults to None.
        published_init (bool): Whether :meth:`init_weights` uses the initialisation of the published figures, see
            :func:`smmix_mm.models.init_transformer`, instead of mmpretrain's. Parts with pretrained weights keep them.
            Defaults to True.
        channels_last (bool): Whether to store images and convolution weights, the teacher's too, in channels-last
            memory format. Defaults to False.
        init_cfg (dict, optional): As in ``ImageClassifier``. Defaults to None.

    Raises:
        ValueError: If no adapter can read the backbone, the head cannot serve the methods, or a method needs a teacher
            and there is none or it cannot answer the method's questions.
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
            data_preprocessor=without_batch_augments(data_preprocessor),
            init_cfg=init_cfg,
        )
        self.published_init = published_init
        self.adapter = build_adapter(self.backbone)
        self.mixing = RandomMixing(**(train_cfg or {}))
        wanted = {method.region_head for method in self.mixing.methods}
        check_head(self.head, self.adapter.embed_dims, shared='shared' in wanted)
        num_classes = count_classes(self.head)
        self.region_head = None
        if 'separate' in wanted:
            self.region_head = nn.Linear(self.adapter.embed_dims, num_classes)
        set_one_hot_labels(self.data_preprocessor, num_classes)
        self.teacher = None if teacher is None else Teacher(teacher)
        for method in self.mixing.methods:
            method.questions = settle_questions(method.questions, has_teacher=self.teacher is not None)
            check_teacher(self.teacher, method, num_classes, self.data_preprocessor, type(self).__name__)
            check_scores(method, self, self.teacher)
            method.prepare(self)
        if channels_last:
            self._put_channels_last()

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """One training step: draws a method, answers its questions, mixes, and computes the losses of the mixed images.

        In evaluation mode nothing is mixed: the loss is the stock classifier's.

        Args:
            inputs (Tensor): Preprocessed images ``(B, C, H, W)``.
            data_samples (list[DataSample]): With one-hot labels ``gt_score``.

        Returns:
            dict[str, Tensor]: ``loss_cls`` and the method's other losses; in evaluation mode the head's own.
        """
        if not self.training:
            return super().loss(inputs, data_samples)
        targets = torch.stack([sample.gt_score for sample in data_samples]).float()
        method, streams = self.mixing.draw()
        method.before_step(self, streams.progress)
        mixed = self.mix(method, inputs, targets, streams)
        features = self.adapter.read(mixed.images, class_attention=method.reads_class_attention)
        features = replace(features, pooled=pool(self, features.feats))
        logits = self.head(features.pooled)
        mixed = replace(mixed, targets=method.relabel(features, mixed))
        losses = method.losses(logits, features, mixed, self.criterion, self._region_classifier(method))
        return self._with_idle_parameters(losses, logits, method)

    def mix(self, method: MixingMethod, images: Tensor, targets: Tensor, streams: Streams) -> MixedBatch:
        """Answers what a method asks of the unmixed images, and mixes them.

        Args:
            method (MixingMethod): One of ``self.mixing.methods``, whose questions are settled.
            images (Tensor): The unmixed batch ``(B, C, H, W)``, preprocessed.
            targets (Tensor): Labels ``(B, classes)``.
            streams (Streams): What the method draws from.
        """
        return method(images, targets, self.answer(method.questions, images, targets), streams)

    def answer(self, questions: Iterable[Question], images: Tensor, targets: Tensor) -> tuple[Motivation, ...]:
        """Answers the questions of a method, equal ones only once.

        Args:
            questions (Iterable[Question]): Settled, so that all questions to one model are equal.
            images (Tensor): The unmixed batch ``(B, C, H, W)``.
            targets (Tensor): Labels ``(B, classes)``.

        Returns:
            tuple[Motivation, ...]: One for each question.
        """
        questions = tuple(questions)
        answers = {question: self.motivate(question, images, targets) for question in dict.fromkeys(questions)}
        return tuple(answers[question] for question in questions)

    @torch.no_grad()
    def motivate(self, question: Question, images: Tensor, targets: Tensor | None = None) -> Motivation:
        """Asks the teacher, or the model under training, about unmixed images. Neither is changed.

        Args:
            question (Question): The question, and which model answers it.
            images (Tensor): The unmixed batch ``(B, C, H, W)``.
            targets (Tensor, optional): Labels ``(B, classes)``, needed for class maps and gradients. Defaults to None.

        Raises:
            ValueError: If the images cannot be mixed region by region, or the asked model cannot run on them.
        """
        if question.needs_teacher and self.teacher is None:
            raise ValueError(f"{type(self).__name__} has no teacher, but by='teacher' of the question needs one")
        with uncached_autocast(images.device.type, question.autocast):
            if not question.own_grid:
                grid = self.adapter.grid(images)
                check_alignment(tuple(images.shape[-2:]), grid, self.adapter)
            if question.by == 'model' or self.teacher is None:
                told = ask(self, self.adapter, images, targets, question)
            else:
                told = self.teacher.motivate(images, targets, question)
        if question.own_grid:
            return told
        attention = functional.resample_scores(told.attention, grid) if question.attention else None
        return replace(told, grid=grid, attention=attention)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes the stock head's loss of logits ``(B, classes)`` under soft targets ``(B, classes)``."""
        return self.head.loss_module(logits, targets, avg_factor=len(logits))

    def init_weights(self) -> None:
        """Applies the published initialisation to parts without pretrained weights, and loads the teacher's weights."""
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
            print_log('Parts without pretrained weights now have the published initialisation', 'current')

    def _put_channels_last(self) -> None:
        """Called in the constructor, since DDP arranges its buckets by the memory format that it finds."""
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
        """Sets the gradients of parameters that a step does not use to zero instead of None.

        These are the parameters of the region classifier, of other methods, and of the head if no loss uses the logits.
        DDP then needs no ``find_unused_parameters``, and accumulation and weight decay treat all steps alike.
        """
        idle = [parameter for other in self.mixing.methods if other is not method for parameter in other.parameters()]
        if self.region_head is not None and method.region_head != 'separate':
            idle += self.region_head.parameters()
        # One logit and not their sum, which overflows in half precision.
        nothing = [parameter.sum() for parameter in idle if parameter.requires_grad] + [logits[0, 0].float()]
        name = next(iter(losses))
        losses[name] = losses[name] + 0.0 * sum(nothing)
        return losses


@contextmanager
def _backbone_loaded_last(backbone: BaseModule) -> Iterator[None]:
    """Loads the checkpoint of the backbone's ``init_cfg`` strictly, after all initialisation.

    mmengine's own loading takes the tensors that fit and logs the rest. Without ``prefix``, no tensor of a classifier's
    checkpoint fits a stock backbone.
    """
    # Not strict_init_cfg, which loads within init_weights: some stock backbones draw their position embeddings after
    # it, unless init_cfg is a dict of mmengine's own type.
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
    load_backbone(backbone, pretrained['checkpoint'], pretrained['prefix'], pretrained['fresh'])


def _with_channels_last(_preprocessor: nn.Module, _args: tuple, data: dict) -> dict:
    return {**data, 'inputs': data['inputs'].contiguous(memory_format=torch.channels_last)}
