"""What the inferencers of the three libraries share: which pictures they take, and how these are read and drawn."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from smmix_mm.datasets.image_folders import PICTURES, list_pictures
from smmix_mm.datasets.own_data import complete_own_data
from smmix_mm.files import free_name
from smmix_mm.visualization.save_pictures import enlarge_small, find_loader

Picture = str | Path | np.ndarray


def list_inputs(inputs: Picture | Sequence[Picture]) -> list[str | np.ndarray]:
    """Lists the pictures that an inferencer is called with.

    Args:
        inputs (str | Path | np.ndarray | Sequence): A file, an address that mmengine reads, an array, a folder, or a
            list of files and arrays. Of a folder its pictures are taken, sorted by name, those in sub-folders not.

    Raises:
        FileNotFoundError: If a folder holds no pictures.
        TypeError: If something else is given.
    """
    if isinstance(inputs, str | Path) and Path(inputs).is_dir():
        found = [str(path) for path in list_pictures(Path(inputs), deep=False)]
        if not found:
            raise FileNotFoundError(
                f'folder {inputs} holds no pictures: no file in it ends in {", ".join(sorted(PICTURES))}; sub-folders '
                'are not read'
            )
        return found
    listed = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    for one in listed:
        if not isinstance(one, Picture):
            raise TypeError(f'pictures have to be files, arrays or a folder, but got {type(one).__name__}')
    return [str(one) if isinstance(one, Path) else one for one in listed]


def read_config(model: str | Path | Config, weights: str | Path | None) -> Config:
    """Reads the config of an inferencer, and fills in what follows from the user's own data.

    Args:
        model (str | Path | Config): A config, or its file.
        weights (str | Path, optional): The checkpoint.

    Raises:
        FileNotFoundError: If there is no such file, or own data without classes in the config.
        ValueError: If the config or the checkpoint is not given.
    """
    if model is None or str(model).endswith('.pth'):
        raise ValueError(
            f'an inferencer needs a config file, but got {model}: the config in a checkpoint is code and not executed'
        )
    if weights is None:
        raise ValueError('an inferencer needs a checkpoint, but got None')
    cfg = copy.deepcopy(model) if isinstance(model, Config) else Config.fromfile(model)
    complete_own_data(cfg)
    return cfg


class PictureInputs:
    """Mixin of an inferencer: takes pictures in a fixed order, and draws on them as they were read for the model."""

    def _inputs_to_list(self, inputs: Picture | Sequence[Picture]) -> list[str | np.ndarray]:
        # Called first in every call: names of drawings are unique within a call.
        self._taken = set()
        return list_inputs(inputs)

    def _read_drawn(
        self, inputs: Sequence, preds: Sequence[BaseDataElement], folder: str | Path | None, enlarge: bool = True
    ) -> Iterator[tuple[np.ndarray, BaseDataElement, str, str | None]]:
        """Reads each picture as RGB, and names it and the PNG file that its drawing is written to, if any.

        With ``enlarge``, small pictures are enlarged, with what is predicted for them.
        """
        load = find_loader(self)
        for number, (one, sample) in enumerate(zip(inputs, preds, strict=True), len(self._taken)):
            is_array = isinstance(one, np.ndarray)
            picture = load(dict(img=one) if is_array else dict(img_path=one))['img']
            # Arrays are named by their number, as in the libraries.
            name = Path(f'{number:08d}.png') if is_array else Path(Path(one).name).with_suffix('.png')
            file = free_name(Path(folder or ''), name, self._taken)
            picture = np.ascontiguousarray(picture[..., ::-1])
            drawn = enlarge_small(picture, sample) if enlarge else (picture, sample)
            yield *drawn, file.name, str(file) if folder else None
