"""Transforms that mmcv and mmpretrain do not have."""

from typing import Any

from mmcv.transforms import LoadImageFromFile

from smmix_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with errors that name the file.

    It decodes with Pillow by default, as the recipes' own code did: OpenCV takes a truncated JPEG without a word and
    fills the rest with grey.

    Args:
        imdecode_backend (str): As in ``LoadImageFromFile``. Defaults to ``'pillow'``.
        **kwargs: As in ``LoadImageFromFile``.

    Raises:
        OSError: From :meth:`transform`, if the file is missing, truncated or not an image.
    """

    def __init__(self, imdecode_backend: str = 'pillow', **kwargs: Any) -> None:
        super().__init__(imdecode_backend=imdecode_backend, **kwargs)

    def transform(self, results: dict) -> dict | None:
        try:
            return super().transform(results)
        except Exception as error:
            raise OSError(f'image {results["img_path"]} cannot be read: {error}') from error
