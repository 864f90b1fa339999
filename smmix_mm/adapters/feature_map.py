"""Adapter of every backbone that ends in a feature map and has no adapter of its own."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features

from .base import Adapter, Tap, evaluating, opened

Size = tuple[int, int]


@ADAPTERS.register_module()
class FeatureMapAdapter(Adapter):
    """Reads backbones whose last output is a feature map, ``(B, C, h, w)`` or ``(B, C, h * w)``.

    Tokens are the places of the map. Their energy takes the place of both attentions, see
    :func:`smmix_mm.functional.activation_score`. If a LayerNorm puts out the map, it is the energy of that norm's
    input, because all tokens have nearly the same after it. There are no layers to read.

    Channels and stride are learned from one black image when the adapter is built, of the size that the backbone was
    built for (its ``img_size``, or 224 x 224). Other sizes are tried in the same way, once each.

    Args:
        backbone (nn.Module): Any backbone that returns a tuple, as mmpretrain's do.

    Raises:
        ValueError: If the backbone's last output is not a map of several tokens, or the backbone cannot run.
    """

    family = nn.Module
    has_attention = False

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self._name = type(backbone).__name__
        classes = getattr(backbone, 'num_classes', None) or 0
        if classes > 0:
            raise ValueError(
                f'{self._name} classifies images itself (num_classes={classes}), but its last map is needed; leave '
                f'num_classes of it out, and add the neck GlobalAveragePooling and the head LinearClsHead'
            )
        size = _size_built_for(backbone)
        with _watched_norms(backbone) as normalised:
            last_map = self._try(size, 'set its img_size to another, or register an adapter')
        self.embed_dims = last_map.shape[1]
        grid = self._grid_of_map(last_map, size)
        if math.prod(grid) == 1:
            raise ValueError(
                f'{self._name} gives a map of one token for {size[0]} x {size[1]} pixels, but regions are made of '
                f'several; {self._if_pooled()}'
            )
        if size[0] % grid[0] or size[1] % grid[1]:
            raise ValueError(self._misaligned(size, grid))
        self.stride = (size[0] // grid[0], size[1] // grid[1])
        self._sizes = {size}
        # Read, if scores are asked for, in addition to the map.
        self._score_taps: tuple[Tap, ...] = ()
        norm = next((norm for norm, output in normalised.items() if _is_places(output, last_map)), None)
        if norm is not None:
            self._score_taps = (Tap(norm, keep_input=True),)

    def read(self, images: Tensor, attention: bool = False, class_attention: bool = False) -> Features:
        size = tuple(images.shape[-2:])
        self.check_size(size)
        grid, scores = self.grid(images), {}
        asked = attention or class_attention
        with opened(*(self._score_taps if asked else ())):
            feats, last_map = self._run(images)
            places = last_map.flatten(2).mT
            if asked:
                scores = self._scores(places, grid, attention, class_attention)
        return Features(feats=feats, tokens=self._normalise(places), grid=grid, **scores)

    @torch.no_grad()
    def _scores(self, places: Tensor, grid: Size, attention: bool, class_attention: bool) -> dict[str, Tensor]:
        """The attentions of :class:`Features` that are asked for, or what takes their place."""
        scores = self._image_scores(places).unflatten(1, grid)
        asked = dict(attention=attention, class_attention=class_attention)
        return {name: scores for name, is_asked in asked.items() if is_asked}

    def _image_scores(self, places: Tensor) -> Tensor:
        """Scores ``(B, h * w)`` of the places of the map ``(B, h * w, C)``: here their energy."""
        for tap in self._score_taps:
            places = _to_places(tap.value, places.shape[2])
        return functional.activation_score(places)

    def grid(self, images: Tensor) -> Size:
        return self._grid(images.shape[-2:])

    def check_size(self, size: Size) -> None:
        if size in self._sizes:
            return
        last_map = self._try(size, 'use the size that it was built for, and motivation_scale=1')
        found = tuple(last_map.shape[2:])
        expected = self._grid(size)
        if found not in (expected, (math.prod(expected),)):
            raise ValueError(self._misaligned(size, found))
        self._sizes.add(size)

    def _run(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Runs the backbone and returns its output and the map ``(B, C, h, w)`` or ``(B, C, h * w)``."""
        feats = self.backbone(images)
        return feats, self._last_map(feats)

    def _normalise(self, places: Tensor) -> Tensor:
        """Converts the places of the map ``(B, h * w, C)`` to tokens: here they are the same."""
        return places

    def _grid(self, size: Size) -> Size:
        rows, cols = (math.ceil(side / step) for side, step in zip(size, self.stride, strict=True))
        return rows, cols

    def _try(self, size: Size, advice: str) -> Tensor:
        """The map of one black image; if there is none, the error gives advice. The backbone is not changed."""
        like = next(self.backbone.parameters(), torch.empty(0))
        convolutions = (module for module in self.backbone.modules() if isinstance(module, nn.Conv2d))
        channels = next((layer.in_channels for layer in convolutions), 3)
        image = torch.zeros(1, channels, *size, device=like.device, dtype=like.dtype)
        try:
            with torch.no_grad(), torch.autocast(like.device.type, enabled=False), evaluating(self.backbone):
                last_map = self._run(image)[1]
        except _UnreadableError as error:
            raise ValueError(str(error)) from None
        except Exception as error:
            raise ValueError(
                f'{self._name} cannot run on images of {size[0]} x {size[1]} pixels ({error}); {advice}'
            ) from error
        return last_map

    def _last_map(self, feats: Any) -> Tensor:
        """The last output, if it is a map."""
        if not isinstance(feats, tuple | list) or not len(feats):
            raise _UnreadableError(
                f'{self._name} returns a {type(feats).__name__}, but a tuple of the outputs of its stages is needed, '
                f'as from the backbones of mmpretrain; return one, or register an adapter'
            )
        last = feats[-1]
        if isinstance(last, tuple | list):
            raise _UnreadableError(
                f'{self._name} returns several tensors for its last stage, of which none alone is the map that is '
                f'classified; choose another backbone, or register an adapter'
            )
        if last.ndim not in (3, 4):
            raise _UnreadableError(
                f'{self._name} returns a vector of shape {tuple(last.shape)} for one image, but its last output has to '
                f'be a map, (B, C, h, w) or (B, C, N); {self._if_pooled()}'
            )
        return last

    def _grid_of_map(self, last_map: Tensor, size: Size) -> Size:
        """Token grid of the map of images of this size; that of ``(B, C, N)`` has the images' aspect ratio."""
        if last_map.ndim == 4:
            return tuple(last_map.shape[2:])
        count = last_map.shape[2]
        rows = max(1, round(math.sqrt(count * size[0] / size[1])))
        if count % rows or rows * size[1] != count // rows * size[0]:
            raise ValueError(
                f'{self._name} returns {count} tokens of {last_map.shape[1]} channels for {size[0]} x {size[1]} '
                f"pixels, which no grid of that aspect ratio has; set out_type='featmap' of it, or register an adapter"
            )
        return rows, count // rows

    def _if_pooled(self) -> str:
        return (
            "if it pools its map, set out_type='featmap' or gap_before_final_norm=False where it has these, with the "
            'neck GlobalAveragePooling; or register an adapter'
        )

    def _misaligned(self, size: Size, grid: tuple[int, ...]) -> str:
        found = ' x '.join(str(side) for side in grid)
        return (
            f'{self._name} gives {found} tokens for {size[0]} x {size[1]} pixels: it pads or crops its input, so that '
            f'tokens and pixels do not line up; choose sizes that its stride divides, or another backbone'
        )


class TappedMapAdapter(FeatureMapAdapter):
    """Reads the map from a module of the backbone, where the backbone's own output is pooled or normalised already.

    The attention's place is taken by the energy before the final norm: after a LayerNorm all tokens have nearly the
    same.

    Args:
        backbone (nn.Module): As in :class:`FeatureMapAdapter`.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._last_output = Tap(self._last_module(backbone))
        super().__init__(backbone)

    @abstractmethod
    def _last_module(self, backbone: nn.Module) -> nn.Module:
        """The module whose output is read."""

    def _map(self, output: Tensor) -> Tensor:
        """Converts the module's output to ``(B, C, h, w)`` or ``(B, C, h * w)``."""
        return output

    def _run(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        with opened(self._last_output):
            feats = self.backbone(images)
            return feats, self._map(self._last_output.value)


@contextmanager
def _watched_norms(backbone: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """Collects what the LayerNorms of a backbone put out, by norm."""
    outputs: dict[nn.Module, Tensor] = {}
    watched = [
        module.register_forward_hook(lambda norm, args, output: outputs.update({norm: output}))
        for module in backbone.modules()
        if isinstance(module, nn.LayerNorm)
    ]
    try:
        yield outputs
    finally:
        for hook in watched:
            hook.remove()


def _to_places(tensor: Tensor, channels: int) -> Tensor:
    """Converts ``(B, h * w, C)``, ``(B, C, h, w)`` or ``(B, h, w, C)`` to ``(B, h * w, C)``."""
    if tensor.ndim == 3:
        return tensor
    return tensor.flatten(2).mT if tensor.shape[1] == channels else tensor.flatten(1, 2)


def _is_places(output: Tensor, last_map: Tensor) -> bool:
    """Whether the output of a norm is the last map, in whatever layout."""
    return output.ndim in (3, 4) and torch.equal(_to_places(output, last_map.shape[1]), last_map.flatten(2).mT)


def check_last_output(backbone: nn.Module, last: int) -> None:
    """Refuses a backbone whose last output is not that of its last block or stage, which is read.

    Raises:
        ValueError: If ``out_indices`` does not end with it.
    """
    indices = tuple(backbone.out_indices)
    if indices[-1] not in (last, -1):
        raise ValueError(
            f'out_indices of {type(backbone).__name__} have to end with the last one, {last}, whose tokens are '
            f'classified, but got {indices}'
        )


class _UnreadableError(Exception):
    """Output that is no map, whatever the size of the images."""


def _size_built_for(backbone: nn.Module) -> Size:
    named = (getattr(module, name, None) for module in backbone.modules() for name in ('img_size', 'init_input_size'))
    size = next(filter(None, named), 224)
    return (size, size) if isinstance(size, int) else tuple(size)
