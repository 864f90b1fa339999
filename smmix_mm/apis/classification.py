"""mmpretrain's inferencer for our configs and checkpoints."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmpretrain.apis import ImageClassificationInferencer as StockInferencer
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

from smmix_mm.datasets import LoadImage
from smmix_mm.datasets.class_lists import find_classes
from smmix_mm.registry import find_scope_and_name

from .loading import load_model
from .pictures import PictureInputs, read_config


class ImageClassificationInferencer(PictureInputs, StockInferencer):
    """mmpretrain's ``ImageClassificationInferencer``, which reads and loads as ``tools/test.py`` does.

    - Files are read by the test pipeline, mmpretrain's reads them by OpenCV. Arrays are BGR, as in mmpretrain.
    - The checkpoint is loaded completely or not at all, and nothing pickled in it is executed.
    - Pictures of a folder are sorted by name, and other files in it are left out. Small ones are drawn enlarged, unless
      ``resize`` or ``rescale_factor`` is given.

    Call it as mmpretrain's, with ``inputs``, ``batch_size`` (1), ``show_dir``, ``return_datasamples`` and so on.

    Args:
        model (str | Path | Config): A config, or its file.
        pretrained (str | Path): A checkpoint, or an address that mmengine reads.
        device (str | torch.device, optional): Defaults to None: a GPU if there is one.
        classes (Sequence[str], optional): Names of the classes. Defaults to None: those in the checkpoint, or those of
            the test dataset.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config or the checkpoint is not given, or the checkpoint does not fit.
    """

    def __init__(
        self,
        model: str | Path | Config,
        pretrained: str | Path,
        device: str | torch.device | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        cfg = read_config(model, pretrained)
        classifier, content = load_model(cfg, pretrained)
        stored = (content.get('meta') or {}).get('dataset_meta')
        dataset = cfg.test_dataloader.dataset
        named = find_classes(dataset, 'test_dataloader', find_scope_and_name(dataset)[0] or 'mmpretrain')
        classifier._dataset_meta = stored or ({} if named is None else dict(classes=named))
        classifier._config = cfg
        super().__init__(classifier, pretrained=False, device=device or get_device(), classes=classes)

    def _init_pipeline(self, cfg: Config) -> Compose:
        self._array_pipeline = super()._init_pipeline(cfg)
        return Compose(cfg.test_dataloader.dataset.pipeline)

    def preprocess(self, inputs: Sequence[str | np.ndarray], batch_size: int = 1) -> Iterator[dict]:
        load = LoadImage()

        def prepare(one: str | np.ndarray) -> dict:
            if isinstance(one, np.ndarray):
                return self._array_pipeline(load(dict(img=one)))
            return self.pipeline(dict(img_path=one))

        yield from map(default_collate, self._get_chunk_data(map(prepare, inputs), batch_size))

    def visualize(
        self,
        ori_inputs: Sequence[str | np.ndarray],
        preds: Sequence[DataSample],
        show: bool = False,
        show_dir: str | Path | None = None,
        **options: Any,
    ) -> list[np.ndarray] | None:
        if not show and show_dir is None:
            return None
        self.visualizer = self.visualizer or UniversalVisualizer()
        drawn = []
        sized = options.get('resize') or options.get('rescale_factor')
        for picture, sample, name, file in self._read_drawn(ori_inputs, preds, show_dir, enlarge=not sized):
            self.visualizer.visualize_cls(
                picture, sample, classes=self.classes, draw_gt=False, show=show, name=name, out_file=file, **options
            )
            drawn.append(self.visualizer.get_image())
        return drawn
