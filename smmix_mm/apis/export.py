"""Exports trained models to ONNX, and compares the file with the model."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn
from torch.onnx import register_custom_op_symbolic, symbolic_helper, unregister_custom_op_symbolic

from smmix_mm.compat import scripted_export
from smmix_mm.files import write_whole

# The first with layer norms as one operator.
OPSET = 17
# Largest difference between model and file, as a share of the largest value where that is above 1.
TOLERANCE = 1e-4
# Any other batch size than 1, which the exporter might take for one that is broadcast.
BATCH = 2


class Exported(nn.Module):
    """What is exported of a model: a classifier's logits, or the feature maps of another model's backbone.

    Args:
        model (nn.Module): A classifier of mmpretrain, or a detector or segmentor; put into evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.eval()
        self.gives_maps = not isinstance(model, BaseClassifier)
        self.model = model.backbone if self.gives_maps else model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, H, W)`` to logits ``(B, classes)``, or to maps ``(B, C_i, h_i, w_i)``."""
        return tuple(self.model(images)) if self.gives_maps else (self.model(images, mode='tensor'),)


def export_onnx(model: nn.Module, path: str | Path, size: tuple[int, int], fixed_size: bool = False) -> float:
    """Writes a classifier, or the backbone of a detector or segmentor, to an ONNX file, and compares the two.

    The input ``images`` is what the model's ``data_preprocessor`` returns: normalised images ``(batch, C, height,
    width)``. A classifier gives ``logits (batch, classes)``, a backbone ``map_0 (batch, C_0, h_0, w_0)`` and so on. The
    batch size is free, and so is the image size of feature maps.

    Args:
        model (nn.Module): Put into evaluation mode.
        path (str | Path): The file, replaced if it exists.
        size (tuple[int, int]): Height and width of the images in pixels; for a free size any that the model takes.
        fixed_size (bool): Whether feature maps are exported for images of this size alone, for backbones that cannot
            keep it free. Defaults to False.

    Returns:
        float: The largest difference found, see :func:`check_onnx`.

    Raises:
        ModuleNotFoundError: If onnxruntime or onnx is not installed.
        ValueError: If the file differs from the model; no file is written then.
    """
    exported = Exported(model)
    free = exported.gives_maps and not fixed_size
    device = next(exported.parameters()).device
    images = torch.randn(BATCH, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        count = len(exported(images))
    names = [f'map_{index}' for index in range(count)] if exported.gives_maps else ['logits']
    axes = {name: {0: 'batch', **({2: f'{name}_height', 3: f'{name}_width'} if free else {})} for name in names}
    axes['images'] = {0: 'batch', **({2: 'height', 3: 'width'} if free else {})}

    def write(unfinished: Path) -> None:
        nonlocal found
        with torch.no_grad(), _sizes_kept_free(), warnings.catch_warnings():
            # Of sizes that may be frozen, among others; the comparison below finds those that are.
            warnings.simplefilter('ignore')
            torch.onnx.export(
                exported,
                (images,),
                str(unfinished),
                input_names=['images'],
                output_names=names,
                dynamic_axes=axes,
                opset_version=OPSET,
                **scripted_export(),
            )
        # Another batch size, and for a free size one that is larger, not square, and a multiple of no stride.
        sizes = [size, (size[0] + 37, size[1] + 75)] if free else [size]
        found = max(check_onnx(exported, unfinished, (batch, 3, *sides)) for batch in (1, 3) for sides in sizes)

    found = 0.0
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)
    return found


def check_onnx(exported: nn.Module, path: str | Path, shape: Sequence[int]) -> float:
    """Compares an ONNX file with the module that it was exported from, on random images.

    Args:
        exported (nn.Module): Returns a tuple of tensors.
        path (str | Path): The file, run by onnxruntime on the CPU.
        shape (Sequence[int]): ``(B, C, H, W)`` of the images.

    Returns:
        float: The largest difference between two values, as a share of the largest value where that is above 1.

    Raises:
        ModuleNotFoundError: If onnxruntime is not installed.
        ValueError: If onnxruntime fails on images of this shape, or shapes or values differ by more than 1e-4.
    """
    import onnxruntime

    images = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = [output.cpu() for output in exported(images.to(next(exported.parameters()).device))]
    options = onnxruntime.SessionOptions()
    # Fatal errors alone: what fails is raised below.
    options.log_severity_level = 4
    advice = 'if its backbone does not keep the image size free, export it with fixed_size=True'
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        found = [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]
    except Exception as error:
        raise ValueError(f'onnxruntime fails on images of the shape {tuple(shape)}: {error}; {advice}') from error
    shapes = [[tuple(output.shape) for output in outputs] for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f'for images of the shape {tuple(shape)} the ONNX file gives {shapes[1]}, but the model {shapes[0]}; '
            f'{advice}'
        )
    pairs = zip(expected, found, strict=True)
    largest = max(((one - other).abs().max() / one.abs().max().clamp(min=1)).item() for one, other in pairs)
    if not largest <= TOLERANCE:
        raise ValueError(
            f'for images of the shape {tuple(shape)} the ONNX file differs from the model by {largest:.2g}, more than '
            f'{TOLERANCE}; {advice}'
        )
    return largest


@contextmanager
def _sizes_kept_free() -> Iterator[None]:
    """Replaces what would freeze the sizes of the traced images: torch's unflatten, mmpretrain's window_reverse."""
    stock = ShiftWindowMSA.window_reverse
    ShiftWindowMSA.window_reverse = staticmethod(_reverse_windows)
    register_custom_op_symbolic('aten::unflatten', _unflatten, OPSET)
    try:
        yield
    finally:
        unregister_custom_op_symbolic('aten::unflatten', OPSET)
        ShiftWindowMSA.window_reverse = staticmethod(stock)


def _reverse_windows(windows: Tensor, height: int, width: int, side: int) -> Tensor:
    """mmpretrain's, which computes the batch size as a Python number."""
    x = windows.view(-1, height // side, width // side, side, side, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, windows.shape[-1])


def _unflatten(g: Any, x: Any, dim: Any, sizes: Any) -> Any:
    """torch's computes the position of ``dim`` in the graph, so that the shapes that follow are those of the trace."""
    rank = symbolic_helper._get_tensor_rank(x)
    dim = symbolic_helper._get_const(dim, 'i', 'dim') % rank
    shape = g.op('Shape', x)

    def cut(start: int, end: int) -> list:
        ends = (g.op('Constant', value_t=torch.tensor([number])) for number in (start, end))
        return [g.op('Slice', shape, *ends)] if start < end else []

    return g.op('Reshape', x, g.op('Concat', *cut(0, dim), sizes, *cut(dim + 1, rank), axis_i=0))
