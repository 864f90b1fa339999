"""Strict loading of our models: :mod:`smmix_mm.checkpoint` with the names that a classifier's parts have."""

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

# What of a classifier only training uses: SMMix's region classifier, and the parameters of methods that have some.
TRAINING_ONLY = ('region_head', 'mixing')
# With the official name of SMMix's region classifier.
NOT_EVALUATED = (*TRAINING_ONLY, 'token_head')
# What classification checkpoints hold beside a backbone.
BESIDE_BACKBONE = ('head', *NOT_EVALUATED)


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str | None = None) -> None:
    """Loads a backbone from a checkpoint of the backbone alone or of a classifier around it, all of it or none.

    Args: as :func:`smmix_mm.checkpoint.load_backbone`.
    """
    strict_loading.load_backbone(backbone, path, prefix, BESIDE_BACKBONE)


def load_classifier(classifier: nn.Module, path: str | Path, prefix: str | None = None) -> None:
    """Loads a classifier from a checkpoint, all of it or none; what only training uses is left out.

    Args: as :func:`smmix_mm.checkpoint.load_classifier`.
    """
    strict_loading.load_classifier(classifier, path, prefix, NOT_EVALUATED)


@contextmanager
def strict_init_cfg(module: BaseModule) -> Iterator[None]:
    """Has the ``init_weights`` of mmengine's load by :func:`load_backbone` what a backbone's ``init_cfg`` names."""
    with strict_loading.strict_init_cfg(module, BESIDE_BACKBONE):
        yield


def with_strict_loading(init_cfg: dict | list[dict] | None) -> list[dict]:
    """Has :func:`load_backbone` do what mmengine's ``Pretrained`` would do.

    Args: as :func:`smmix_mm.checkpoint.strict_loading.with_strict_loading`.
    """
    return strict_loading.with_strict_loading(init_cfg, BESIDE_BACKBONE)
