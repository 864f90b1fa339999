"""A classifier's motivation from unmixed images, for the model under training and for a teacher alike."""

import math

import torch
import torch.nn.functional as F
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.models.necks import GlobalAveragePooling
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.adapters.base import Adapter, evaluating
from smmix_mm.structures import Features, Motivation, Question


def ask(
    model: ImageClassifier, adapter: Adapter, images: Tensor, targets: Tensor | None, question: Question
) -> Motivation:
    """Asks a classifier about unmixed images in one pass in evaluation mode, and does not change it.

    Args:
        model (ImageClassifier): The classifier to ask.
        adapter (Adapter): Of its backbone.
        images (Tensor): ``(B, C, H, W)``, preprocessed.
        targets (Tensor, optional): Labels ``(B, classes)``, for class maps and gradients.
        question (Question): The question.

    Returns:
        Motivation: The answers, on the grid of this model at this scale.

    Raises:
        ValueError: If the backbone cannot run on images of that size.
    """
    if not question.asked:
        return Motivation(adapter.grid(images))
    input_loss = question.input_gradient
    with torch.set_grad_enabled(input_loss is not None), evaluating(model):
        images = _rescale(images, question.scale, adapter.stride).requires_grad_(input_loss is not None)
        adapter.check_size(tuple(images.shape[-2:]))
        # Without attention the adapter gives the energy, in some families of the tokens before their norm.
        own_scores = (None, 'attention') if adapter.has_attention else (None, 'activation')
        features = adapter.read(images, attention=question.attention and question.score in own_scores)
        tokens, grid = features.tokens, features.grid
        needs_logits = question.logits or input_loss or question.score == 'class_activation'
        scores = classify(model, features.feats) if needs_logits else None
        return Motivation(
            grid=grid,
            attention=_score(model, features, scores, question) if question.attention else None,
            logits=scores.detach() if question.logits else None,
            # Within evaluation mode, since gradient checkpointing recomputes activations here.
            input_gradient=torch.autograd.grad(input_loss(scores, targets), images)[0] if input_loss else None,
            class_map=class_scores(model, tokens, targets).unflatten(1, grid) if question.class_map else None,
            activation=tokens.float().mean(dim=2).unflatten(1, grid) if question.activation else None,
        )


def classify(model: ImageClassifier, feats: tuple[Tensor, ...]) -> Tensor:
    """Computes logits ``(B, classes)`` of the backbone's output by the stock neck and head."""
    return model.head(pool(model, feats))


def pool(model: ImageClassifier, feats: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """Applies the stock neck, if there is one, to the backbone's output and returns the head's input."""
    return model.neck(feats) if model.with_neck else feats


def class_scores(model: ImageClassifier, tokens: Tensor, targets: Tensor) -> Tensor:
    """Applies the classifier to every token, for the image's own class only.

    Args:
        model (ImageClassifier): With a neck and head that pass :func:`check_class_scores`.
        tokens (Tensor): ``(B, N, C)``.
        targets (Tensor): One-hot labels ``(B, classes)``.

    Returns:
        Tensor: ``(B, N)``, the logit of each image's class at each token.
    """
    linear = _last_linear(model.head)
    hidden = model.head.pre_logits((tokens.flatten(0, 1),)).unflatten(0, tokens.shape[:2])
    # One row of the classifier's weight per image: all classes at all tokens would cost up to a tenth of the backbone.
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    hidden, targets = hidden.to(dtype), targets.to(dtype)
    with torch.autocast(tokens.device.type, enabled=False):
        scores = torch.einsum('bnc,bc->bn', hidden, targets @ linear.weight.to(dtype))
        return scores if linear.bias is None else scores + (targets @ linear.bias.to(dtype)).unsqueeze(1)


def check_class_scores(model: ImageClassifier, embed_dims: int) -> None:
    """Refuses, before training starts, classifiers that cannot be applied to single tokens.

    Args:
        model (ImageClassifier): The classifier whose neck and head are checked.
        embed_dims (int): Channels of its tokens.

    Raises:
        ValueError: If its neck does more than average, or its head is more than a linear layer on ``pre_logits``.
    """
    if model.with_neck and not isinstance(model.neck, GlobalAveragePooling):
        raise ValueError(
            f'its neck has to be GlobalAveragePooling or None, so that its classifier can be applied to every token, '
            f'but is {type(model.neck).__name__}'
        )
    classes = count_classes(model.head)
    try:
        weight = _last_linear(model.head).weight
        like = dict(device=weight.device, dtype=weight.dtype)
        tokens = torch.linspace(-1, 1, classes * embed_dims, **like).view(classes, 1, embed_dims)
        with torch.no_grad(), evaluating(model):
            expected = model.head((tokens.squeeze(1),)).diagonal().double()
            # torch.eye of torch 2.1 does not support half precision.
            one_hot = torch.eye(classes, device=weight.device)
            found = class_scores(model, tokens, one_hot).squeeze(1).double()
        tolerance = 100 * torch.finfo(weight.dtype).eps
        fits = torch.allclose(found, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    except Exception as error:
        raise ValueError(f'its head {type(model.head).__name__} cannot be applied to a token: {error}') from error
    if not fits:
        raise ValueError(f'its head {type(model.head).__name__} is not a single linear layer on pre_logits')


def _score(model: ImageClassifier, features: Features, logits: Tensor | None, question: Question) -> Tensor:
    """What the question wants as attention, ``(B, h, w)``."""
    if question.score == 'class_activation':
        predicted = F.one_hot(logits.detach().argmax(dim=1), logits.shape[1])
        of_class = class_scores(model, features.tokens, predicted)
        return functional.class_activation_score(of_class).unflatten(1, features.grid)
    if features.attention is None:
        return functional.activation_score(features.tokens).unflatten(1, features.grid)
    return features.attention


def _rescale(images: Tensor, scale: float, stride: tuple[int, int]) -> Tensor:
    images = images.detach()
    if scale == 1:
        return images
    # Halves are rounded down, so that half the sides never cost more than a quarter.
    sides = zip(images.shape[-2:], stride, strict=True)
    size = [max(1, math.ceil(side * scale / step - 0.5)) * step for side, step in sides]
    return F.interpolate(images, size, mode='bilinear', align_corners=False, antialias=True)


def count_classes(head: nn.Module) -> int | None:
    """Number of classes of a head, also of one that does not keep it (``VigClsHead``); None without a linear layer."""
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return getattr(head, 'num_classes', linear[-1].out_features if linear else None)


def _last_linear(head: nn.Module) -> nn.Linear:
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
