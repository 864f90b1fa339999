"""The model whose features and loss train AutoMix's mix block."""

import copy

import torch
from torch import Tensor, nn

from smmix_mm.adapters.base import build_adapter
from smmix_mm.mixing.base import TrainedModel


class MomentumModel(nn.Module):
    """The moving average of a classifier's backbone, neck and head: frozen, but in training mode when the model is.

    OpenMixup's momentum encoder is in training mode too, so that stochastic depth and dropout act in it.

    Names in the ``state_dict`` are those of mmengine's averaged models: ``module.*`` and ``steps``.

    Args:
        model (TrainedModel): The classifier to copy. Each update brings in its later weights.
        layer (int): The layer to read.

    Attributes:
        module (nn.ModuleDict): ``backbone``, ``neck`` if there is one, and ``head``.
        steps (Tensor): Number of updates so far, int64.
    """

    # Not mmpretrain's CosineEMA: it fails outside a run, its cosine follows its own updates instead of the run's more
    # numerous iterations, and in an update the host waits for the device at every parameter.
    def __init__(self, model: TrainedModel, layer: int) -> None:
        super().__init__()
        self.module = copy.deepcopy(_parts(model)).requires_grad_(False)
        self.register_buffer('steps', torch.tensor(0))
        # A new adapter, because the model's adapter does not read the copied hooks.
        self.adapter = build_adapter(self.module['backbone'])
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)``; gradients reach the images, not the parameters."""
        feats = self.module['backbone'](images)
        return self.module['head'](self.module['neck'](feats) if 'neck' in self.module else feats)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The head's loss of logits ``(B, classes)`` under soft targets ``(B, classes)``."""
        return self.module['head'].loss_module(logits, targets, avg_factor=len(logits))

    # Autocast's cache is not affected: it holds only weights that need gradients, and these do not.
    @torch.no_grad()
    def read_layer(self, images: Tensor) -> Tensor:
        """Features ``(B, C', h', w')`` of the layer."""
        return self.adapter.read_layer(images, self.layer)

    @torch.no_grad()
    def update_parameters(self, model: TrainedModel, momentum: float) -> None:
        """Moves the weights towards the model's. The first update copies them exactly. The host does not wait.

        Args:
            model (TrainedModel): The classifier that was copied.
            momentum (float): Weight of its parameters, in [0, 1]. Buffers are copied.
        """
        # Chosen on the device: 1 the first time.
        part = (self.steps == 0).float().clamp(min=momentum)
        trained = _parts(model)
        parameters, buffers = dict(trained.named_parameters()), dict(trained.named_buffers())
        # Not through .data: PVT caches resized position embeddings by the version of the original ones.
        for name, parameter in self.module.named_parameters():
            parameter.lerp_(parameters[name], part.to(parameter.dtype))
        for name, buffer in self.module.named_buffers():
            buffer.copy_(buffers[name])
        self.steps += 1


def _parts(model: TrainedModel) -> nn.ModuleDict:
    parts = {'backbone': model.backbone, 'neck': model.neck if model.with_neck else None, 'head': model.head}
    return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
