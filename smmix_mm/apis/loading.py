"""Models of configs with the weights of checkpoints, loaded completely or not at all."""

from pathlib import Path

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from smmix_mm.checkpoint import find_weights, load_except
from smmix_mm.engine import build_model
from smmix_mm.models.pretrained import TRAINING_ONLY


def load_weights(model: nn.Module, content: dict, source: str) -> None:
    """Loads the weights of a model for inference, completely or not at all.

    Parts that only training uses, ``region_head`` and ``mixing``, may be missing in the checkpoint or in the model.

    Args:
        model (nn.Module): Loaded in place.
        content (dict): Of the checkpoint.
        source (str): Named in errors, such as the file.

    Raises:
        ValueError: If there are no weights, or other names or shapes differ.
    """
    load_except(model, find_weights(content, source), source, TRAINING_ONLY)


def load_model(cfg: Config, checkpoint: str | Path) -> tuple[nn.Module, dict]:
    """Builds the model of a config, with its preprocessing and the weights of a checkpoint, on the CPU.

    Args:
        cfg (Config): Of a classifier, detector or segmentor. Its ``default_scope`` becomes the current one.
        checkpoint (str | Path): A file, or an address that mmengine reads. Nothing pickled in it is executed.

    Returns:
        tuple[nn.Module, dict]: The model in evaluation mode, and the content of the checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or its weights do not fit the model.
    """
    model = build_model(cfg)
    content = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
    load_weights(model, content, str(checkpoint))
    # Not eval() in one line: mmpretrain's backbones return None.
    model.eval()
    return model, content
