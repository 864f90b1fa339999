"""mmdet's inferencer for our configs and checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.apis import DetInferencer as StockInferencer
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose

from smmix_mm.datasets import LoadImage

from .dense import DenseInferencer


class DetInferencer(DenseInferencer, StockInferencer):
    """mmdet's ``DetInferencer``, which loads as ``tools/test.py`` does, and draws pictures of every kind.

    - The checkpoint is loaded completely or not at all, and nothing in it is executed. mmdet's, called without a
      config, executes the one in the checkpoint.
    - Pictures of a folder are sorted by name. They are drawn on as they were read, small ones enlarged, and saved
      as PNG.

    Call it as mmdet's, with ``inputs``, ``batch_size`` (1), ``out_dir``, ``pred_score_thr`` (0.3) and so on. Arrays are
    BGR.

    Args:
        model (str | Path | Config): A config, or its file.
        weights (str | Path): A checkpoint, or an address that mmengine reads.
        device (str | torch.device, optional): Defaults to None: a GPU if there is one.
        **settings: As in mmdet's: ``scope``, ``palette``, ``show_progress``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config or the checkpoint is not given, or the checkpoint does not fit.
    """

    def _init_pipeline(self, cfg: Config) -> Compose:
        pipeline = super()._init_pipeline(cfg)
        for step in pipeline.transforms:
            if isinstance(getattr(step, 'from_file', None), LoadImage):
                # mmdet's own takes arrays of every type and shape as they are.
                step.from_ndarray = step.from_file
        return pipeline

    def visualize(
        self,
        inputs: Sequence[str | np.ndarray],
        preds: Sequence[DetDataSample],
        return_vis: bool = False,
        show: bool = False,
        no_save_vis: bool = False,
        img_out_dir: str = '',
        **options: Any,
    ) -> list[np.ndarray] | None:
        folder = Path(img_out_dir, 'vis') if img_out_dir and not no_save_vis else None
        if not (return_vis or show or folder):
            return None
        return self._draw(inputs, preds, folder, show=show, **options)
