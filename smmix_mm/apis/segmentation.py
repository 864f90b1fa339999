"""mmseg's inferencer for our configs and checkpoints."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from mmseg.apis import MMSegInferencer as StockInferencer
from mmseg.structures import SegDataSample

from .dense import DenseInferencer


class MMSegInferencer(DenseInferencer, StockInferencer):
    """mmseg's ``MMSegInferencer``, which loads as ``tools/test.py`` does, and takes pictures of every kind and size.

    - The checkpoint is loaded completely or not at all, and nothing pickled in it is executed.
    - Pictures of different sizes are not put into the same batch, which mmseg refuses.
    - Pictures of a folder are sorted by name, and other files in it are left out. They are drawn on as they were read,
      small ones enlarged, and saved as PNG.

    Call it as mmseg's, with ``inputs``, ``batch_size`` (1), ``out_dir``, ``opacity`` (0.8) and so on. Arrays are BGR.

    Args:
        model (str | Path | Config): A config, or its file.
        weights (str | Path): A checkpoint, or an address that mmengine reads.
        device (str | torch.device, optional): Defaults to None: a GPU if there is one.
        **settings: As in mmseg's: ``classes``, ``palette``, ``dataset_name``, ``scope``, ``show_progress``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config or the checkpoint is not given, or the checkpoint does not fit.
    """

    def _get_chunk_data(self, inputs: Iterable[dict], chunk_size: int) -> Iterator[list[dict]]:
        for _, same in groupby(inputs, lambda data: data['inputs'].shape):
            yield from super()._get_chunk_data(same, chunk_size)

    def visualize(
        self,
        inputs: Sequence[str | np.ndarray],
        preds: Sequence[SegDataSample],
        return_vis: bool = False,
        show: bool = False,
        img_out_dir: str = '',
        opacity: float = 0.8,
        **options: Any,
    ) -> list[np.ndarray] | None:
        if not (return_vis or show or img_out_dir):
            return None
        self.visualizer.set_dataset_meta(**self.model.dataset_meta)
        self.visualizer.alpha = opacity
        drawn = self._draw(inputs, preds, img_out_dir, show=show, **options)
        return drawn if return_vis else None
