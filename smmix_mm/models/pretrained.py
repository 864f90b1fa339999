"""Strict loading of our models: :mod:`smmix_mm.checkpoint` with the names of a classifier's parts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from smmix_mm.checkpoint import strict_loading
from smmix_mm.checkpoint.strict_loading import BackboneInit, is_pretrained

__all__ = [
    'BESIDE_BACKBONE',
    'TRAINING_ONLY',
    'BackboneInit',
    'is_pretrained',
    'load_backbone',
    'load_classifier',
    'strict_init_cfg',
    'with_strict_loading',
]

# Parts of a classifier that only training uses: SMMix's region classifier and the parameters of mixing methods.
TRAINING_ONLY = ('region_head', 'mixing')
# `token_head` is the official name of SMMix's region classifier.
NOT_EVALUATED = (*TRAINING_ONLY, 'token_head')
# Parts of classification checkpoints other than the backbone.
BESIDE_BACKBONE = ('head', *NOT_EVALUATED)


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str | None = None, fresh: Iterable[str] = ()) -> None:
    """Loads a backbone completely, or fails. The checkpoint may be of the backbone alone or of a classifier.

    Args: as :func:`smmix_mm.checkpoint.load_backbone`.
    """
    strict_loading.load_backbone(backbone, path, prefix, BESIDE_BACKBONE, fresh)


def load_classifier(classifier: nn.Module, path: str | Path, prefix: str | None = None) -> None:
    """Loads a classifier from a checkpoint completely, or fails. Parts that only training uses are skipped.

    Args: as :func:`smmix_mm.checkpoint.load_classifier`.
    """
    strict_loading.load_classifier(classifier, path, prefix, NOT_EVALUATED)


@contextmanager
def strict_init_cfg(module: BaseModule) -> Iterator[None]:
    """Makes mmengine's ``init_weights`` load a backbone's ``init_cfg`` checkpoint by :func:`load_backbone`."""
    with strict_loading.strict_init_cfg(module, BESIDE_BACKBONE):
        yield


def with_strict_loading(init_cfg: dict | list[dict] | None) -> list[dict]:
    """Replaces mmengine's ``Pretrained`` by :func:`load_backbone`.

    Args: as :func:`smmix_mm.checkpoint.strict_loading.with_strict_loading`.
    """
    return strict_loading.with_strict_loading(init_cfg, BESIDE_BACKBONE)


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class StrictPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained``, which can also refuse a checkpoint that fits in part, for any backbone.

    mmengine loads the tensors that fit, and trains on from random weights where none does. With ``strict=True`` an
    ``init_cfg`` loads by :func:`load_backbone`. Without it nothing changes. It takes the name of mmengine's own,
    because stock backbones ask for that name before they draw weights of their own. Backbones that read their
    checkpoint themselves never build an initialiser: ``SwinTransformer``, ``VisionTransformer`` and ``BEiT`` of mmseg,
    ``SwinTransformer`` and ``PyramidVisionTransformer`` of mmdet.

    Args:
        checkpoint (str): Path or address of a checkpoint of the backbone, or of a classifier.
        prefix (str, optional): Part of the names to load. Defaults to None: the backbone is found, if ``strict``.
        map_location (str): Of mmengine's loading. Defaults to ``'cpu'``.
        strict (bool): Whether every tensor has to match. Defaults to False.
        fresh (Sequence[str]): Parts of the backbone, with ``strict``, that the checkpoint does not have and that stay
            as they were drawn, such as the norms of maps that a classifier does not put out. Defaults to none.

    Raises:
        ValueError: If ``fresh`` is given without ``strict``, or ``strict`` in another ``init_cfg`` than a dict of type
            ``'Pretrained'``, after which stock backbones draw some weights anew.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        map_location: str = 'cpu',
        strict: bool = False,
        fresh: Sequence[str] = (),
    ) -> None:
        super().__init__(checkpoint, prefix, map_location)
        if fresh and not strict:
            raise ValueError(f"fresh={fresh!r} of init_cfg of type 'Pretrained' needs strict=True")
        self.strict = strict
        self.fresh = fresh

    def __call__(self, module: nn.Module) -> None:
        if not self.strict:
            super().__call__(module)
            return
        written = getattr(module, 'init_cfg', None)
        if not isinstance(written, dict) or written.get('type') != 'Pretrained':
            raise ValueError(
                f"strict=True needs init_cfg of {type(module).__name__} to be one dict with type='Pretrained', because "
                f'its weights are drawn anew after any other, but got {written}'
            )
        BackboneInit(self.checkpoint, self.prefix, BESIDE_BACKBONE, self.fresh)(module)
