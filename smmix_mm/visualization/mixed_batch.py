"""Pictures of mixed batches."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from smmix_mm.mixing import SMMix, step_streams
from smmix_mm.models import MixingClassifier
from smmix_mm.structures import Question


def draw_mixed_batch(
    model: MixingClassifier, images: Tensor, labels: list[str], path: str | Path, seed: int = 0
) -> None:
    """Saves a picture with one row per image: target and source with their attention, mixed by SMMix and by CutMix.

    Both methods mix the same pairs with a region of the same size; they differ in where it is cut and pasted.

    Args:
        model (MixingClassifier): Provides the attention and the normalisation of the images.
        images (Tensor): Preprocessed, ``(B, 3, H, W)``; the source of image ``b`` is image ``B - 1 - b``.
        labels (list[str]): Names of the images' classes.
        path (str | Path): Path of the PNG file. Missing folders are created.
        seed (int): Seed of the draws. Defaults to 0.

    Raises:
        ValueError: If the model was built without its preprocessing, so that it does not normalise images.
    """
    if not getattr(model.data_preprocessor, '_enable_normalize', False):
        raise ValueError(
            'draw_mixed_batch needs a model whose data_preprocessor has mean and std, but it has none: images would '
            'not be normalised as in training. Build the model with smmix_mm.engine.build_model(cfg)'
        )
    targets = F.one_hot(torch.arange(len(images)), len(images)).float()
    answer = model.motivate(Question(attention=True), images)
    mixed = {
        name: SMMix(placement=placement, loss=dict(con_weight=0.0))(images, targets, (answer,), step_streams(seed, 0))
        for name, placement in (('SMMix', 'max_min'), ('CutMix', 'cutmix'))
    }
    share, attention = mixed['SMMix'].share, answer.attention
    columns = {
        'target': _to_pictures(model, images),
        "target's attention": _to_heat(model, images, attention),
        'source': _to_pictures(model, images.flip(0)),
        "source's attention": _to_heat(model, images.flip(0), attention.flip(0)),
        **{f'{name}, share {share:.2f}': _to_pictures(model, batch.images) for name, batch in mixed.items()},
    }
    _save_grid(columns, [f'{target} + {source}' for target, source in zip(labels, labels[::-1], strict=True)], path)


def _to_pictures(model: MixingClassifier, images: Tensor) -> np.ndarray:
    """Undoes the normalisation and returns ``(B, H, W, 3)`` from 0 to 1."""
    preprocessor = model.data_preprocessor
    pixels = images.cpu() * preprocessor.std.cpu() + preprocessor.mean.cpu()
    return (pixels / 255).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _to_heat(model: MixingClassifier, images: Tensor, attention: Tensor) -> np.ndarray:
    """Overlays each image with the attention of its tokens, scaled from the image's minimum to its maximum."""
    low, high = attention.flatten(1).aminmax(dim=1)
    scaled = (attention - low[:, None, None]) / (high - low).clamp(min=1e-12)[:, None, None]
    enlarged = F.interpolate(scaled[:, None].float().cpu(), size=images.shape[-2:])[:, 0]
    colours = matplotlib.colormaps['viridis'](enlarged.numpy())[..., :3]
    return 0.6 * colours + 0.4 * _to_pictures(model, images)


def _save_grid(columns: Mapping[str, np.ndarray], row_names: list[str], path: str | Path) -> None:
    rows = len(row_names)
    figure = Figure(figsize=(1.7 * len(columns), 1.7 * rows + 0.3), layout='constrained')
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0][column].set_title(title, fontsize=9)
        for row in range(rows):
            axis = axes[row][column]
            # Exact pixels; smoothing would also make the file four times as large.
            axis.imshow(pictures[row], interpolation='nearest')
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(row_names[row], fontsize=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
