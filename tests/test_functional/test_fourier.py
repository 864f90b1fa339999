import numpy as np
import pytest
import reference_mixing as reference
import torch

from smmix_mm import functional


@pytest.mark.parametrize('size', [(8, 8), (7, 12), (12, 7), (9, 9), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize('decay', [0.0, 1.5, 3.0])
def test_low_frequency_field_equals_numpy(size, decay):
    noise = np.random.default_rng(0).standard_normal((*size, 2))
    field = functional.low_frequency_field(torch.as_tensor(noise), decay)
    assert field.dtype == torch.float64
    np.testing.assert_allclose(field.numpy(), reference.low_frequency_field(noise, decay), rtol=1e-9, atol=1e-12)
    as_complex = torch.as_tensor(noise[..., 0] + 1j * noise[..., 1])
    assert torch.equal(functional.low_frequency_field(as_complex, decay), field)


def test_single_precision_is_enough():
    """Of 224 x 224 frequencies divided by their cube the loudest is a million times the faintest."""
    noise = torch.randn(224, 224, 2)
    field = functional.low_frequency_field(noise)
    exact = functional.low_frequency_field(noise.double())
    assert field.dtype == torch.float32
    torch.testing.assert_close(field.double(), exact, rtol=0, atol=1e-6 * exact.abs().max().item())


def test_the_larger_the_decay_the_smoother_the_field():
    noise = torch.randn(64, 48, 2)
    roughness = []
    for decay in (0.0, 1.0, 2.0, 3.0):
        field = functional.low_frequency_field(noise, decay)
        roughness.append(field.diff(dim=0).abs().mean() / field.std())
    assert roughness == sorted(roughness, reverse=True)
    assert roughness[-1] < 0.1 < 1 < roughness[0]
