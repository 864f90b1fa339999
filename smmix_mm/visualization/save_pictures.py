"""Pictures of predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer
from torch import Tensor

from smmix_mm.datasets.load_image import LoadImage
from smmix_mm.files import free_name

# Smaller pictures are too small for the text of classes and scores.
MIN_SIDE_WITH_TEXT = 384


class SavePictures(Hook):
    """Saves one picture of the predictions per image, drawn by the visualizer of the model's library.

    The libraries' own hooks differ in folders and file names, and mmpretrain's swaps red and blue. Small pictures are
    enlarged by a whole factor. Images are read by :class:`~smmix_mm.datasets.LoadImage` with the settings of the test
    pipeline, so that the pictures show what the model has seen.

    Args:
        folder (Path | None): Folder of the pictures, which keep the names of the images. With None none is saved, and
            ``show=True`` shows them in a window.
        interval (int): Every how many images one is drawn. Defaults to 1.
        show (bool): Whether to show the pictures in a window too. Defaults to False.
        wait_time (float): Seconds that each is shown. Defaults to 0.
        **options: Options of the ``add_datasample`` of visualizers of detection and segmentation.

    Raises:
        ValueError: While testing, if the visualizer draws no predictions, or the dataset reads no image files.
    """

    def __init__(
        self, folder: Path | None, interval: int = 1, show: bool = False, wait_time: float = 0, **options: Any
    ) -> None:
        self.folder = folder
        self.interval = interval
        self.window = dict(show=show, wait_time=wait_time)
        self.options = options
        self.seen = 0
        self.taken = set()
        self.load: LoadImage | None = None

    def before_test(self, runner: Runner) -> None:
        self.load = find_loader(runner.test_dataloader.dataset)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        # The visualizers draw only in the main process.
        for sample in outputs if is_main_process() else ():
            self.seen += 1
            if (self.seen - 1) % self.interval:
                continue
            path = sample.get('img_path')
            if path is None:
                raise ValueError(f'--show-dir needs img_path in the data samples, which hold {sample.all_keys()}')
            # The visualizers need RGB.
            image = np.ascontiguousarray(self.load(dict(img_path=str(path)))['img'][..., ::-1])
            image, sample = enlarge_small(image, sample)
            out_file = str(self._choose_file(str(path))) if self.folder else None
            if hasattr(runner.visualizer, 'visualize_cls'):
                runner.visualizer.visualize_cls(image, sample, out_file=out_file, **self.window)
            elif type(runner.visualizer) is not Visualizer:
                runner.visualizer.add_datasample('', image, sample, out_file=out_file, **self.window, **self.options)
            else:
                raise ValueError(
                    '--show-dir needs a visualizer that draws predictions in the config, such as '
                    "dict(type='mmdet.DetLocalVisualizer')"
                )

    def _choose_file(self, path: str) -> Path:
        """Keeps the image's name. Where OpenCV does not write files of that kind, such as GIF, it is a PNG file."""
        name = Path(Path(path).name)
        return free_name(self.folder, name if cv2.haveImageWriter(path) else name.with_suffix('.png'), self.taken)


def find_loader(dataset: Any) -> LoadImage:
    """Returns a transform that reads images as the dataset does, but always as colour with integer values.

    Args:
        dataset (Any): A dataset, possibly wrapped, with or without a ``pipeline``.
    """
    while not hasattr(dataset, 'pipeline') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    used = next((transform for transform in transforms if isinstance(transform, LoadImageFromFile)), None)
    if used is None:
        return LoadImage()
    # OpenCV and Pillow do not rotate images that they read unchanged.
    unturned = used.color_type == 'unchanged' or used.color_type.endswith('_ignore_orientation')
    return LoadImage(
        color_type='color_ignore_orientation' if unturned else 'color',
        # Other backends do not decode to three channels of 8 bits.
        imdecode_backend=used.imdecode_backend if used.imdecode_backend in ('cv2', 'turbojpeg') else 'pillow',
        file_client_args=used.file_client_args,
        backend_args=used.backend_args,
    )


def enlarge_small(image: np.ndarray, sample: BaseDataElement) -> tuple[np.ndarray, BaseDataElement]:
    """Enlarges a picture by the smallest whole factor that leaves room for text, and what is drawn on it.

    Args:
        image (np.ndarray): ``(H, W, 3)``. One with sides of at least ``MIN_SIDE_WITH_TEXT`` stays as it is.
        sample (BaseDataElement): Its data sample, see :func:`enlarge_sample`.
    """
    factor = -(-MIN_SIDE_WITH_TEXT // min(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1), enlarge_sample(sample, factor)


def enlarge_sample(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """Returns a copy whose boxes, masks and label maps, true and predicted, fit a picture ``factor`` times as large.

    Args:
        sample (BaseDataElement): A data sample; one of a classifier has none of these.
        factor (int): The factor; 1 returns the sample itself.
    """
    if factor == 1:
        return sample
    sample = sample.clone()
    for name, field in sample.items():
        # Not the logits, which are large and not drawn.
        if isinstance(field, PixelData) and name != 'seg_logits':
            maps = {key: _enlarge_pixels(torch.as_tensor(value), factor) for key, value in field.items()}
            setattr(sample, name, PixelData(**maps))
        elif isinstance(field, InstanceData):
            # Cloning is shallow, and the original instances still have to be evaluated.
            field = field.clone()
            if 'bboxes' in field:
                # mmdet's box classes hold a tensor.
                field.bboxes = getattr(field.bboxes, 'tensor', field.bboxes) * factor
            if 'masks' in field:
                is_tensor = isinstance(field.masks, Tensor)
                field.masks = _enlarge_pixels(field.masks, factor) if is_tensor else field.masks.rescale(factor)
            setattr(sample, name, field)
    return sample


def _enlarge_pixels(maps: Tensor, factor: int) -> Tensor:
    return maps.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
