"""What the tools of this folder share: models with their weights, methods by name, class names, lists of images."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import Dataset

from smmix_mm.checkpoint import load_except, read_checkpoint, read_weights
from smmix_mm.datasets.image_folders import list_pictures
from smmix_mm.engine import build_model, needs_teacher, read_method, with_method, with_teacher
from smmix_mm.models import MixingClassifier
from smmix_mm.models.pretrained import TRAINING_ONLY


def use_method(cfg: Config, name: str, checkpoint: str | None, settings: Mapping[str, Any]) -> Config:
    """Returns a classification config that mixes every batch with a named method, also for a stock ``ImageClassifier``.

    Args:
        cfg (Config): Config of a classifier; not changed.
        name (str): One of :data:`smmix_mm.engine.METHODS`.
        checkpoint (str, optional): Weights of a teacher of the same model, for a method that needs one.
        settings (Mapping[str, Any]): Settings of methods, ``METHOD.SETTING`` each; those of others are left out.

    Raises:
        ValueError: If the method needs a teacher, and there is no checkpoint.
    """
    cfg = with_method(cfg, read_method(name, settings))
    augments = cfg.model.train_cfg.augments
    if not augments:
        return cfg
    # The others stay, so that the names in checkpoints fit. If Mixup takes the other steps, it is listed first.
    cfg.model.train_cfg.probs = [0.0] * (len(augments) - 1) + [1.0]
    init_default_scope(cfg.default_scope)
    if needs_teacher(augments[-1:]):
        if checkpoint is None:
            raise ValueError(f'{name} needs a teacher: name a CHECKPOINT of this model, which is then its own teacher')
        cfg = with_teacher(cfg, checkpoint)
    return cfg


def build_classifier(cfg: Config, checkpoint: str | None, source: str) -> nn.Module:
    """Builds the classifier of a config with the weights of a checkpoint, in evaluation mode.

    Args:
        cfg (Config): Config of a classifier.
        checkpoint (str, optional): Its weights; None initialises them as the config does.
        source (str): The config, named in errors.

    Raises:
        FileNotFoundError, ValueError: If the checkpoint is missing, broken or of another model, or the model is no
            classifier.
    """
    # mmengine logs how it initialises each weight.
    MMLogger.get_instance('pictures').setLevel('WARNING')
    model = build_model(cfg)
    if not (isinstance(getattr(model, 'backbone', None), nn.Module) and getattr(model, 'head', None) is not None):
        raise ValueError(f'{source} has to be the config of a classifier, but its model is {type(model).__name__}')
    if checkpoint is None:
        model.init_weights()
        return model.eval()
    weights = read_weights(checkpoint)
    kept = set(TRAINING_ONLY)
    if holds_mixing(model.state_dict()):
        if holds_mixing(weights):
            kept.remove('mixing')
        else:
            print(f'{checkpoint} has no weights of the mixing method; they are random', file=sys.stderr, flush=True)
    load_except(model, weights, checkpoint, kept)
    if getattr(model, 'teacher', None) is not None:
        model.teacher.load()
    return model.eval()


def holds_mixing(weights: Iterable[str]) -> bool:
    """Whether names of weights include those of a mixing method that is trained along."""
    return any(name.startswith('mixing.') for name in weights)


def check_mixing(model: nn.Module, config: str) -> MixingClassifier:
    """Refuses classifiers that cannot mix.

    Raises:
        ValueError: If the model is no :class:`smmix_mm.MixingClassifier`.
    """
    if not isinstance(model, MixingClassifier):
        raise ValueError(
            f'{config} has to be of a smmix_mm.MixingClassifier, but its model is {type(model).__name__}; choose a '
            f'method for it by --method'
        )
    return model


def class_names(dataset: Dataset, num_classes: int) -> list[str]:
    """Class names of a dataset, or numbers if it has none.

    Raises:
        ValueError: If it has another number of classes than the model.
    """
    return _check_names((getattr(dataset, 'metainfo', None) or {}).get('classes'), num_classes, type(dataset).__name__)


def stored_class_names(checkpoint: str, num_classes: int) -> list[str]:
    """Class names that mmengine wrote into a checkpoint, or numbers if there are none.

    Raises:
        ValueError: If they are not as many as the classes of the model.
    """
    stored = (read_checkpoint(checkpoint).get('meta') or {}).get('dataset_meta') or {}
    return _check_names(stored.get('classes'), num_classes, checkpoint)


def _check_names(classes: Sequence[str] | None, num_classes: int, source: str) -> list[str]:
    if not classes:
        return [f'class {index}' for index in range(num_classes)]
    if len(classes) != num_classes:
        raise ValueError(f'num_classes of the head is {num_classes}, but {source} has {len(classes)} classes')
    return [str(name) for name in classes]


def list_images(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Lists files, and the images in folders and their sub-folders, each with its path below what was named.

    A folder without images and a path that does not exist are listed themselves, so that reading them names them.

    Args:
        paths (Iterable[Path]): Files and folders.
    """
    for path in paths:
        inside = list_pictures(path)
        if not inside:
            yield path, Path(path.name)
        for file in inside:
            yield file, file.relative_to(path)
