"""What the inferencers of mmdet and mmseg share, both of which are mmengine's ``BaseInferencer``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn

from .loading import load_weights
from .pictures import PictureInputs, read_config


class DenseInferencer(PictureInputs):
    """Mixin that reads and loads as ``tools/test.py`` does."""

    def __init__(
        self,
        model: str | Path | Config,
        weights: str | Path,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> None:
        cfg = read_config(model, weights)
        self._source = str(weights)
        super().__init__(cfg, self._source, device=device, **settings)

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict, cfg: Config) -> None:
        load_weights(model, checkpoint, self._source)
        # It loads them again, and takes names of classes from the checkpoint.
        super()._load_weights_to_model(model, checkpoint, cfg)

    def _draw(
        self,
        inputs: Sequence[str | np.ndarray],
        preds: Sequence[BaseDataElement],
        folder: str | Path | None,
        **options: Any,
    ) -> list[np.ndarray]:
        drawn = []
        for picture, sample, name, file in self._read_drawn(inputs, preds, folder):
            self.visualizer.add_datasample(name, picture, sample, draw_gt=False, out_file=file, **options)
            drawn.append(self.visualizer.get_image())
        return drawn
