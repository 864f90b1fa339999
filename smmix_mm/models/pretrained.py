"""Strict loading of our models: :mod:`smmix_mm.checkpoint` with the names of a classifier's parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.model import BaseModule
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


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str | None = None) -> None:
    """Loads a backbone completely, or fails. The checkpoint may be of the backbone alone or of a classifier.

    Args: as :func:`smmix_mm.checkpoint.load_backbone`.
    """
    strict_loading.load_backbone(backbone, path, prefix, BESIDE_BACKBONE)


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
