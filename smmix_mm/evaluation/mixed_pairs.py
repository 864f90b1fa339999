"""Whether a model recognises both images of a mixed one."""

from torch import Tensor


def pair_hits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compares predictions of mixed images with the classes of their two images.

    `SMMix: Self-Motivated Image Mixing for Vision Transformers <https://arxiv.org/abs/2212.12977>`_, figure 5a. Two
    images of one class have no two best classes to find, so they are no pair here.

    Args:
        logits (Tensor): ``(B, classes)`` of the mixed images, at least two classes.
        targets (Tensor): Soft labels ``(B, classes)``. The classes of a pair are those that are not 0.

    Returns:
        tuple[Tensor, Tensor, Tensor]: ``(B,)`` bool each. *top-1*: the prediction is one of the two classes. *top-2*:
        the two best predictions are exactly these classes. *pair*: the label is of two classes; where it is not, the
        others are False too.
    """
    named = targets != 0
    is_pair = named.sum(dim=1) == 2
    hits = named.gather(1, logits.topk(2, dim=1).indices)
    return hits[:, 0] & is_pair, hits.all(dim=1) & is_pair, is_pair
