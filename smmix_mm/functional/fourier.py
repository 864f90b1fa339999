"""Random fields of low frequency."""

import torch
from torch import Tensor


def low_frequency_field(noise: Tensor, decay: float = 3.0) -> Tensor:
    r"""A grey random field in which low frequencies dominate.

    `FMix: Enhancing Mixed Sample Data Augmentation <https://arxiv.org/abs/2002.12047>`_: the real part of the inverse
    Fourier transform of noise divided by :math:`f^{decay}`. Frequencies :math:`f` are in cycles per pixel, over both
    axes; those below ``1 / max(h, w)``, including zero, are raised to that value.

    Args:
        noise (Tensor): Complex ``(h, w)``, or its real and imaginary parts ``(h, w, 2)``: independent normal numbers,
            one for each frequency.
        decay (float): 0 gives white noise, larger values smoother fields. Defaults to 3.

    Returns:
        Tensor: ``(h, w)``, real, of any range.
    """
    spectrum = noise if noise.is_complex() else torch.view_as_complex(noise)
    rows, cols = (torch.fft.fftfreq(side, device=spectrum.device, dtype=spectrum.real.dtype) for side in spectrum.shape)
    frequency = torch.hypot(rows.unsqueeze(1), cols.unsqueeze(0)).clamp(min=1 / max(spectrum.shape))
    return torch.fft.ifft2(spectrum / frequency**decay).real
