"""A frozen model that gives the motivation instead of the one under training."""

import copy
from collections.abc import Iterable

from torch import Tensor, nn

from smmix_mm.adapters.base import build_adapter
from smmix_mm.models.pretrained import (
    BackboneInit,
    is_pretrained,
    load_backbone,
    load_classifier,
    with_strict_loading,
)
from smmix_mm.registry import MODELS
from smmix_mm.structures import Motivation, Question

from .motivation import ask, check_class_scores, count_classes


class Teacher:
    """A frozen classifier.

    It is not an ``nn.Module``, so that the classifier that owns it does not save, train, reduce or count its weights.
    It moves to the device of the images that it is asked about. Copies of the owner (averaged weights) share it.

    Args:
        cfg (dict | nn.Module): Config of an ``ImageClassifier`` or a subclass, with a backbone that an adapter reads
            and an ``init_cfg`` of type ``'Pretrained'``; or a classifier that has its weights. If only the backbone has
            an ``init_cfg``, the teacher can give attention and activations alone.

    Attributes:
        model (nn.Module): The classifier, in evaluation mode and without gradients.
        num_classes (int): Classes of its head.

    Raises:
        ValueError: If the config names no weights, or is not of a classifier whose backbone an adapter reads.
    """

    def __init__(self, cfg: dict | nn.Module) -> None:
        self._is_loaded = isinstance(cfg, nn.Module)
        self._has_head = True
        self._checkpoint: dict | None = None
        self.model: nn.Module = cfg if self._is_loaded else self._build(copy.deepcopy(dict(cfg)))
        self.model.requires_grad_(False)
        self.model.eval()
        if not all(hasattr(self.model, part) for part in ('backbone', 'head')):
            raise ValueError(
                f'teacher has to be a classifier with a backbone and a head, such as mmpretrain.ImageClassifier, but '
                f'got {type(self.model).__name__}'
            )
        try:
            self.adapter = build_adapter(self.model.backbone)
        except ValueError as error:
            raise ValueError(f'teacher: {error}') from error
        self.num_classes: int | None = count_classes(self.model.head)

    def check(
        self, asked: Iterable[str], method: str, num_classes: int, data_preprocessor: nn.Module | None = None
    ) -> None:
        """Refuses, before training starts, questions that the teacher cannot answer.

        Args:
            asked (Iterable[str]): See :attr:`smmix_mm.structures.Question.asked`; ``'class_activation'`` if that is a
                question's score.
            method (str): Named in the error.
            num_classes (int): Classes of the model under training.
            data_preprocessor (nn.Module, optional): That of the model under training, whose images the teacher gets.
                Defaults to None, which skips the comparison.

        Raises:
            ValueError: If a question needs the head, and it is of other classes, has no weights or cannot be applied
                to single tokens; if the teacher was trained on images that were normalised in another way.
        """
        asked = set(asked)
        if asked & {'logits', 'class_map'} and self.num_classes != num_classes:
            raise ValueError(
                f'teacher needs num_classes={num_classes} for {method}, as in the model under training, but has '
                f'{self.num_classes}'
            )
        if asked & {'logits', 'class_map', 'class_activation'} and not self._has_head:
            raise ValueError(
                f'{method} also needs weights for the head of the teacher: set init_cfg of the teacher, not of its '
                f'backbone'
            )
        if 'class_map' in asked:
            try:
                check_class_scores(self.model, self.adapter.embed_dims)
            except ValueError as error:
                raise ValueError(f'teacher lacks the class maps that {method} needs: {error}') from error
        if asked:
            self._check_normalisation(data_preprocessor)

    def load(self) -> None:
        """Loads its weights strictly, unless it has them.

        Raises:
            FileNotFoundError, OSError, ValueError: As :func:`smmix_mm.models.load_classifier`.
        """
        if self._is_loaded:
            return
        checkpoint = self._checkpoint['checkpoint'], self._checkpoint['prefix']
        if self._has_head:
            load_classifier(self.model, *checkpoint)
        else:
            load_backbone(self.model.backbone, *checkpoint, self._checkpoint['fresh'])
        self._is_loaded = True
        # Some backbones derive tensors from their weights when they are set to evaluation, which no state_dict has.
        self.model.eval()

    def motivate(self, images: Tensor, targets: Tensor | None, question: Question) -> Motivation:
        """As :func:`smmix_mm.models.classifiers.motivation.ask`.

        Raises:
            RuntimeError: If its weights were never loaded.
        """
        if not self._is_loaded:
            raise RuntimeError('the teacher has no weights yet: call init_weights() of the classifier before training')
        weight = next(self.model.parameters())
        if weight.device != images.device:
            self.model.to(images.device).eval()
        return ask(self.model, self.adapter, images.to(weight.dtype), targets, question)

    def _build(self, cfg: dict) -> nn.Module:
        """Builds the classifier without its weights, which evaluating the model under training does not need."""
        for owner in (cfg, cfg.get('backbone') or {}):
            init_cfg = owner.get('init_cfg')
            if is_pretrained(init_cfg):
                self._checkpoint = next(part for part in with_strict_loading(init_cfg) if part['type'] is BackboneInit)
                self._has_head = owner is cfg
                del owner['init_cfg']
                return MODELS.build(cfg)
        raise ValueError(
            f"teacher needs weights: init_cfg=dict(type='Pretrained', checkpoint=...), but got "
            f'init_cfg={cfg.get("init_cfg")}'
        )

    def _check_normalisation(self, data_preprocessor: nn.Module | None) -> None:
        found, needed = (
            {name: getattr(part, name).flatten().tolist() for name in ('mean', 'std')}
            if getattr(part, '_enable_normalize', False)
            else None
            for part in (getattr(self.model, 'data_preprocessor', None), data_preprocessor)
        )
        if found and needed and found != needed:
            raise ValueError(
                f'teacher gets the images of the model under training, normalised by {needed}, but its own '
                f'data_preprocessor has {found}; they have to agree'
            )

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self
