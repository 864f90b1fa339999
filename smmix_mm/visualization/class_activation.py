"""Class activation maps by the library grad-cam."""

from collections.abc import Sequence

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor, nn

from smmix_mm.adapters import build_adapter


def map_class_activation(model: ImageClassifier, images: Tensor, labels: Sequence[int]) -> Tensor:
    """Computes Grad-CAM, where in each image the model finds a class.

    `Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization
    <https://arxiv.org/abs/1610.02391>`_, at the layer that :func:`find_last_layer` finds.

    Args:
        model (ImageClassifier): In evaluation mode; any backbone that has an adapter.
        images (Tensor): ``(B, C, H, W)``, preprocessed.
        labels (Sequence[int]): A class for each image.

    Returns:
        Tensor: ``(B, H, W)``, each image from 0 to 1 relative to its own range; all 0 where nothing speaks for the
        class.

    Raises:
        ImportError: If grad-cam is not installed.
        ValueError: If no layer can be read.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise ImportError(f'class activation maps need the package grad-cam: pip install grad-cam ({error})') from error
    grid = build_adapter(model.backbone).grid(images)
    layer = find_last_layer(model, images[:1], grid)
    # Cloned, since some backbones add to the output in place.
    cam = GradCAM(model=model, target_layers=[layer], reshape_transform=lambda output: to_map(output, grid).clone())
    with cam:
        return torch.as_tensor(cam(input_tensor=images, targets=[ClassifierOutputTarget(label) for label in labels]))


def find_last_layer(model: ImageClassifier, images: Tensor, grid: tuple[int, int]) -> nn.Module:
    """Finds the last layer of a backbone whose image tokens the logits depend on: a block, a stage or a norm.

    Where a class token is classified, the image tokens have no influence any more once the last attention has read
    them: the layer is the norm before it then, which mmpretrain's ``vis_cam`` takes too.

    Args:
        model (ImageClassifier): In evaluation mode.
        images (Tensor): ``(B, C, H, W)``, preprocessed.
        grid (tuple[int, int]): Token grid ``(h, w)`` of the last block.

    Raises:
        ValueError: If there is none.
    """
    outputs: dict[nn.Module, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda layer, args, output: outputs.update({layer: output}))
        for module in model.backbone.modules()
        # Not single projections, such as those to queries and keys.
        if any(module.children()) or 'norm' in type(module).__name__.lower()
    ]
    try:
        with torch.enable_grad():
            # The sum of all logits may be constant.
            best = model(images).amax(dim=1).sum()
    finally:
        for hook in hooks:
            hook.remove()
    for layer, output in reversed(outputs.items()):
        if not (isinstance(output, Tensor) and output.requires_grad) or to_map(output, grid) is None:
            continue
        (gradient,) = torch.autograd.grad(best, output, retain_graph=True, allow_unused=True)
        if gradient is not None and to_map(gradient, grid).any():
            return layer
    raise ValueError(
        f'{type(model.backbone).__name__} has no layer with the {grid[0]} x {grid[1]} tokens of its last block that '
        f'its logits depend on, so that class activation maps cannot be computed'
    )


def to_map(output: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """Converts the output of a layer to ``(B, C, h, w)``.

    Args:
        output (Tensor): A map ``(B, C, h, w)`` or ``(B, h, w, C)``, or tokens ``(B, E + h * w, C)`` whose extra tokens
            come first.
        grid (tuple[int, int]): ``(h, w)``.

    Returns:
        Tensor: The map; None if it has another grid.
    """
    grid = tuple(grid)
    if output.ndim == 4:
        if tuple(output.shape[2:]) == grid:
            return output
        return output.permute(0, 3, 1, 2) if tuple(output.shape[1:3]) == grid else None
    extra = output.shape[1] - grid[0] * grid[1] if output.ndim == 3 else -1
    # A class token, and one of distillation.
    return output[:, extra:].mT.unflatten(2, grid) if 0 <= extra <= 2 else None
