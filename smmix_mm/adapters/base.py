"""Base class of adapters, and the lookup of the adapter of a backbone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from mmpretrain.models.peft import LoRAModel
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features


class Tap:
    """Keeps the output of one module of the backbone while it is open.

    The hook stays on the module and does nothing while the tap is closed, because a compiled backbone ignores hooks
    that are added later. The tap survives ``copy.deepcopy`` (EMA): the copy taps the copied module.

    Args:
        module (nn.Module): A module of the backbone.
        keep_input (bool): Whether to keep the module's first input in place of its output. Defaults to False.
    """

    def __init__(self, module: nn.Module, keep_input: bool = False) -> None:
        self._of = type(module).__name__
        self._keep_input = keep_input
        self._output: Any = None
        self.is_open = False
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.is_open:
            self._output = args[0] if self._keep_input else output

    @property
    def value(self) -> Any:
        """The module's last output, or input, since the tap was opened; None while it is closed.

        Raises:
            RuntimeError: If the tap is open and the hook has seen no output.
        """
        if self.is_open and self._output is None:
            raise RuntimeError(
                f'the hook on {self._of} saw no output: the backbone did not run that module, or torch.compile '
                f'dropped the hook at a graph break. Compile the backbone with the hook smmix_mm.CompileBackbone and '
                f'fullgraph=True'
            )
        return self._output

    def close(self) -> None:
        """Closes the tap and releases the output."""
        self.is_open, self._output = False, None


@contextmanager
def opened(*taps: Tap) -> Iterator[None]:
    """Opens taps for one run of the backbone and empties them afterwards, so that no graph outlives its step."""
    for tap in taps:
        tap.is_open = True
    try:
        yield
    finally:
        for tap in taps:
            tap.close()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Sets evaluation mode, and restores each module's own mode afterwards, such as that of frozen stages."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    for module in training:
        # LeViT and others prepare for evaluation there, and cannot be evaluated without.
        if type(module).train is not nn.Module.train:
            module.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Adapter(ABC):
    """Reads one family of backbones. All code that depends on the family is in its adapter.

    The backbone is stock and unmodified. One ordinary run gives the stock output, the final tokens and, if asked for,
    the attention of the last block. Fused attention stays fused, and the weights are computed in addition from the
    block's own queries and keys; an explicit softmax is read directly.

    Args:
        backbone (nn.Module): An instance of :attr:`family`.

    Attributes:
        family: The backbone class that this adapter reads, its subclasses included.
        has_attention: Whether the attention is read; if not, the energy of the tokens takes its place, see
            :func:`smmix_mm.functional.activation_score`.
        backbone: The backbone.
        embed_dims (int): Channels of the tokens.
        stride (tuple[int, int]): Height and width in pixels of the patch of a token.
        num_layers (int): Number of layers that :meth:`read_layer` can read.
        middle_layer (int): The layer in the middle of the backbone.
    """

    family: ClassVar[type[nn.Module]]
    has_attention: ClassVar[bool] = True
    embed_dims: int
    stride: tuple[int, int]
    num_layers: int = 0
    middle_layer: int = 0

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        self._layer_taps: dict[int, Tap] = {}

    @abstractmethod
    def read(self, images: Tensor, attention: bool = False, class_attention: bool = False) -> Features:
        """Runs the backbone once.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed.
            attention (bool): Whether to read the image attention score of the last block too. Defaults to False.
            class_attention (bool): Whether to read the class token's attention. Defaults to False.

        Returns:
            Features: The outputs of the run.
        """

    @abstractmethod
    def grid(self, images: Tensor) -> tuple[int, int]:
        """Token grid ``(h, w)`` of the last block for images of this size, without running the backbone."""

    def check_size(self, size: tuple[int, int]) -> None:  # noqa: B027
        """Checks that the backbone can run on images of this size.

        Args:
            size (tuple[int, int]): Height and width in pixels.

        Raises:
            ValueError: If it cannot. The message names the backbone, the size and the size needed.
        """

    def read_layer(self, images: Tensor, layer: int) -> Tensor:
        """Runs the backbone and reads the output map of one of its layers.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed.
            layer (int): From 1 to :attr:`num_layers`; see the adapter of the family for what is counted.

        Returns:
            Tensor: ``(B, C', h', w')``, without extra tokens.

        Raises:
            ValueError: If the layer is out of range, or the adapter reads no layers but the last.
        """
        if not 1 <= layer <= self.num_layers:
            has = f'layers 1 to {self.num_layers}' if self.num_layers else 'no layers whose output can be read'
            raise ValueError(f'{type(self.backbone).__name__} has {has}, but layer {layer} was requested')
        if layer not in self._layer_taps:
            self._layer_taps[layer] = Tap(self._layer(layer))
        tap = self._layer_taps[layer]
        with opened(tap):
            self.backbone(images)
            return self._layer_map(tap.value, images, layer)

    def layer_dims(self, layer: int) -> int:
        """Channels of the map that :meth:`read_layer` reads, without running the backbone.

        Args:
            layer (int): From 1 to :attr:`num_layers`.
        """
        raise NotImplementedError

    def _layer(self, layer: int) -> nn.Module:
        """The module whose output gives a layer's map."""
        raise NotImplementedError

    def _layer_map(self, output: Any, images: Tensor, layer: int) -> Tensor:
        """Converts the output of a layer's module to ``(B, C', h', w')``."""
        raise NotImplementedError


def split_heads(projected: Tensor, num_heads: int) -> Tensor:
    """Splits queries, keys and values ``(B, N, 3 * C)`` to ``(3, B, heads, N, C / heads)``."""
    return projected.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)


@torch.no_grad()
def read_scores(
    query: Tensor,
    key: Tensor,
    num_extra_tokens: int,
    grid: tuple[int, int],
    attention: bool = False,
    class_attention: bool = False,
    by_class_token: bool = True,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> dict[str, Tensor]:
    """Computes the attentions of :class:`Features` from the queries and keys of a block over all tokens of an image.

    Args:
        query (Tensor): ``(B, heads, E + N, head_dim)``, the ``E`` extra tokens first.
        key (Tensor): Same shape.
        num_extra_tokens (int): ``E``; 0 for a block without class token.
        grid (tuple[int, int]): ``(h, w)`` with ``h * w = N``.
        attention (bool): Whether the image attention score is wanted. Defaults to False.
        class_attention (bool): Whether the class token's attention is wanted. Defaults to False.
        by_class_token (bool): Whether images are classified by their class token. If not, or if there is none, the
            image attention score replaces the class token's attention. Defaults to True.
        scale (float, optional): Factor on the products of queries and keys. Defaults to ``head_dim ** -0.5``.
        bias (Tensor, optional): Added to the scaled products of queries and keys, ``(heads, E + N, E + N)``.
            Defaults to None.

    Returns:
        dict[str, Tensor]: ``(B, h, w)`` each, under their names in :class:`Features`.
    """
    scores = {}
    by_class_token = by_class_token and num_extra_tokens > 0
    if attention or (class_attention and not by_class_token):
        scores['attention'] = functional.image_attention(query, key, num_extra_tokens, scale, bias).unflatten(1, grid)
    if class_attention and by_class_token:
        scores['class_attention'] = functional.class_attention(query, key, num_extra_tokens, scale, bias).unflatten(
            1, grid
        )
    elif class_attention:
        scores['class_attention'] = scores['attention']
    return scores


def build_adapter(backbone: nn.Module) -> Adapter:
    """Builds the adapter of a backbone's family, the most derived one where several fit.

    Args:
        backbone (nn.Module): Any backbone. Without an adapter of its own it is read by
            :class:`smmix_mm.adapters.FeatureMapAdapter`.

    Returns:
        Adapter: Bound to the backbone.

    Raises:
        ValueError: If the adapter refuses the backbone's settings or output.
    """
    ADAPTERS.import_from_location()
    known = {adapter.family: adapter for adapter in ADAPTERS.module_dict.values()}
    if isinstance(backbone, LoRAModel):
        # It does nothing but call the backbone in it.
        backbone = backbone.module
    nearest = next(ancestor for ancestor in type(backbone).__mro__ if ancestor in known)
    return known[nearest](backbone)
