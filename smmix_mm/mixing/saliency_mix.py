"""SaliencyMix: pastes a box around the most salient pixel of one source."""

import cv2
import numpy as np
import torch
from torch import Tensor

from smmix_mm import functional
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import Streams, random_pairs, to_device
from smmix_mm.structures import MixedBatch

from .base import Answers, MixingMethod
from .checks import POSITIVE, check_choice, check_number


@BATCH_AUGMENTS.register_module()
class SaliencyMix(MixingMethod):
    r"""CutMix whose box lies around the most salient pixel of a source.

    `SaliencyMix: A Saliency Guided Data Augmentation Strategy for Better Regularization
    <https://arxiv.org/abs/2006.01791>`_ (ICLR 2021).

    Pairs are a random permutation of the batch. The source of the first image decides for the whole batch, as in the
    authors' code: the box of the wanted area around its most salient pixel is pasted at the same place in all images.
    The box is clipped to the image, and the source's share in the labels is the clipped box's part of the area.

    There are two ways to find that pixel:

    - ``'spectral_residual'`` (:func:`smmix_mm.functional.spectral_residual`) runs on the device, where the box stays
      too, so the host does not wait. It takes a few small kernels on one image of 64 columns.
    - ``'fine_grained'``, the authors': OpenCV's static fine-grained saliency, which only its contrib build has. One
      image is copied to the host in every step, **and the host waits until the device has finished all work queued
      before**; then the detector takes about 10 ms of the host for 224 x 224 pixels. Its input is the normalised
      image, with its range stretched to 0 .. 255. The authors' code, and OpenMixup's, pass the normalised floats to
      the detector. OpenCV reads these byte by byte, so that their peak says little about the image.

    Args:
        alpha (float): The box's wanted part of the area comes from Beta(alpha, alpha). OpenMixup has 0.2. Defaults to
            1.0, the paper's.
        saliency (str): ``'spectral_residual'`` or ``'fine_grained'``. Defaults to ``'spectral_residual'``.

    Raises:
        ValueError: If a setting is outside its range.
        ImportError: If ``saliency`` is ``'fine_grained'`` and this OpenCV does not have it.
    """

    def __init__(self, alpha: float = 1.0, saliency: str = 'spectral_residual') -> None:
        super().__init__()
        self.alpha = check_number('SaliencyMix', 'alpha', alpha, *POSITIVE)
        self.saliency = check_choice('SaliencyMix', 'saliency', saliency, ('spectral_residual', 'fine_grained'))
        if saliency == 'fine_grained' and not hasattr(cv2, 'saliency'):
            raise ImportError(
                f"saliency='fine_grained' of SaliencyMix needs OpenCV's contrib modules, which the installed OpenCV "
                f'{cv2.__version__} lacks: replace every OpenCV package with opencv-contrib-python-headless of the '
                f"same version, or use saliency='spectral_residual'"
            )

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        pairs = random_pairs(streams.local, len(images), images.device)
        wanted = streams.local.beta(self.alpha, self.alpha)
        size = tuple(images.shape[-2:])
        # Not images[pairs[0]], for which the host would wait.
        centre = self.find_peaks(images.index_select(0, pairs[:1]))[0]
        mask, share = functional.box_mask_around(centre, wanted, size)
        return MixedBatch(
            images=functional.mix_masked(images, images[pairs], mask),
            targets=functional.mix_pairs(targets, share, pairs),
            share=share,
            source_mask=mask,
        )

    def find_peaks(self, images: Tensor) -> Tensor:
        """The most salient pixel of each image: ``(B, 2)`` int64, row and column, for images ``(B, C, H, W)``."""
        if self.saliency == 'spectral_residual':
            return functional.peak_pixels(functional.spectral_residual(images), tuple(images.shape[-2:]))
        maps = np.stack([_fine_grained(image) for image in images.detach().float().cpu().numpy()])
        peaks = functional.peak_pixels(torch.as_tensor(maps), tuple(images.shape[-2:]))
        return to_device(peaks, images.device)

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, saliency={self.saliency!r}'


def _fine_grained(image: np.ndarray) -> np.ndarray:
    """OpenCV's saliency ``(H, W)`` of an image ``(C, H, W)`` of any range."""
    lowest, highest = image.min(), image.max()
    stretched = (image - lowest) / max(highest - lowest, np.finfo(np.float32).tiny) * 255
    pixels = np.ascontiguousarray(stretched.round().astype(np.uint8).transpose(1, 2, 0))
    return cv2.saliency.StaticSaliencyFineGrained_create().computeSaliency(pixels)[1]
