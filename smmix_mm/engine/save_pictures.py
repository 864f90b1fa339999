"""Pictures of what a model predicts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

# Smaller pictures have no room for the text that a classifier's predictions are.
MIN_SIDE_WITH_TEXT = 224


class SavePictures(Hook):
    """Saves one picture per image of what was predicted, by the visualizer of the model's library.

    The libraries' own hooks differ in where they save and under which names, mmpretrain's swaps red and blue.

    Args:
        folder (Path): Where the pictures go, under the names of the images.
        **options: For the visualizer's ``add_datasample``.

    Raises:
        ValueError: While testing, if the visualizer draws no predictions, or the dataset reads no image files.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.options = options
        self.taken = set()

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        for sample in outputs:
            path = sample.get('img_path')
            if path is None:
                raise ValueError(f'--show-dir needs img_path in the data samples, which hold {sample.all_keys()}')
            image = mmcv.imread(path, channel_order='rgb')
            out_file = str(self.folder / self._name(Path(path)))
            if hasattr(runner.visualizer, 'visualize_cls'):
                side = max(MIN_SIDE_WITH_TEXT, min(image.shape[:2]))
                runner.visualizer.visualize_cls(image, sample, resize=side, out_file=out_file)
            elif type(runner.visualizer) is not Visualizer:
                runner.visualizer.add_datasample('', image, sample, out_file=out_file, **self.options)
            else:
                raise ValueError(
                    '--show-dir needs a visualizer that draws predictions in the config, such as '
                    "dict(type='mmdet.DetLocalVisualizer')"
                )

    def _name(self, path: Path) -> str:
        """The image's own; with a number, where another folder has an image of the same name."""
        name, number = path.name, 1
        while name in self.taken:
            number += 1
            name = f'{path.stem}_{number}{path.suffix}'
        self.taken.add(name)
        return name
