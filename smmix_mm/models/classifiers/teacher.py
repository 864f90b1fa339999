"""A frozen model that motivates in the place of the one under training."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from smmix_mm.adapters.base import build_adapter
from smmix_mm.engine.pretrained import BackboneInit, is_pretrained, load_classifier, with_strict_loading
from smmix_mm.registry import MODELS
from smmix_mm.structures import Motivation

from .motivation import check_class_scores, read_motivation


class Teacher:
    """A frozen classifier.

    No ``nn.Module``, so that the classifier around it neither saves, trains, reduces nor counts its weights. It goes
    to the device of the images that it is asked about, and copies of that classifier (averaged weights) share it.

    Args:
        cfg (dict | nn.Module): Config of an ``ImageClassifier`` or a subclass, its backbone of a family with an
            adapter, with an ``init_cfg`` of type ``'Pretrained'`` of its own or of its parts; or a classifier that has
            its weights.

    Attributes:
        model (nn.Module): The classifier, in evaluation mode and without gradients.
        num_classes (int): Classes of its head.

    Raises:
        ValueError: If the config names no weights, or no classifier whose backbone has an adapter.
    """

    def __init__(self, cfg: dict | nn.Module) -> None:
        self._is_loaded = isinstance(cfg, nn.Module)
        self._checkpoint: dict | None = None
        if not self._is_loaded:
            cfg = self._build(dict(cfg))
        self.model: nn.Module = cfg
        self._freeze()
        if not all(hasattr(self.model, part) for part in ('backbone', 'head')):
            raise ValueError(
                f'teacher has to be a classifier with a backbone and a head, such as mmpretrain.ImageClassifier, but '
                f'got {type(self.model).__name__}'
            )
        try:
            self.adapter = build_adapter(self.model.backbone)
        except ValueError as error:
            raise ValueError(f'teacher: {error}') from error
        self.num_classes: int | None = getattr(self.model.head, 'num_classes', None)

    def check(self, asked: Iterable[str], method: str, num_classes: int) -> None:
        """Refuses, before training starts, to be asked for what it cannot tell.

        Args:
            asked (Iterable[str]): See :attr:`smmix_mm.mixing.MixingMethod.asks_teacher`.
            method (str): Named in the error.
            num_classes (int): Classes of the model under training.

        Raises:
            ValueError: If it knows other classes, or its head cannot be applied at a token where that is asked for.
        """
        asked = set(asked)
        if asked & {'logits', 'class_map'} and self.num_classes != num_classes:
            raise ValueError(
                f'teacher needs num_classes={num_classes}, the classes of the model under training, for {method}, but '
                f'has {self.num_classes}'
            )
        if 'class_map' in asked:
            try:
                check_class_scores(self.model, self.adapter.embed_dims)
            except ValueError as error:
                raise ValueError(f'teacher lacks the class maps that {method} needs: {error}') from error

    def load(self) -> None:
        """Loads its weights, all or none.

        Raises:
            FileNotFoundError, OSError, ValueError: As :func:`smmix_mm.engine.load_classifier`.
        """
        if self._is_loaded:
            return
        if self._checkpoint:
            load_classifier(self.model, self._checkpoint['checkpoint'], self._checkpoint['prefix'])
        else:
            self.model.init_weights()
        self._freeze()
        self._is_loaded = True

    def motivate(self, images: Tensor, *asked: Any, **how: Any) -> Motivation:
        """As :func:`read_motivation`.

        Raises:
            RuntimeError: If its weights were never loaded.
        """
        if not self._is_loaded:
            raise RuntimeError('the teacher has no weights yet: call init_weights() of the classifier before training')
        weight = next(self.model.parameters())
        if (weight.device, weight.dtype) != (images.device, images.dtype):
            self.model.to(images)
        return read_motivation(self.model, self.adapter, images, *asked, **how)

    def _freeze(self) -> None:
        self.model.requires_grad_(False)
        self.model.eval()

    def _build(self, cfg: dict) -> nn.Module:
        """Without loading: whoever only evaluates the model under training needs no weights here."""
        init_cfg = cfg.get('init_cfg')
        if is_pretrained(init_cfg):
            cfg.pop('init_cfg')
            self._checkpoint = next(part for part in with_strict_loading(init_cfg) if part['type'] is BackboneInit)
        model = MODELS.build(cfg)
        if not self._checkpoint and not any(is_pretrained(getattr(part, 'init_cfg', None)) for part in model.modules()):
            raise ValueError(
                f"teacher needs weights: init_cfg=dict(type='Pretrained', checkpoint=...), its own or its parts', but "
                f'got init_cfg={init_cfg}'
            )
        return model

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self
