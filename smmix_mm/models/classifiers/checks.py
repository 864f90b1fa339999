"""Checks of a mixing classifier's parts and batches, before training starts where possible."""

import copy
import math
from collections.abc import Mapping

import torch
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import nn

from smmix_mm.adapters.base import Adapter
from smmix_mm.mixing.base import MixingMethod, TrainedModel

from .motivation import check_class_scores, count_classes
from .teacher import Teacher


def check_head(head: nn.Module | None, embed_dims: int, shared: bool) -> None:
    """Tries the head's criterion, and its classifier if regions share it.

    Args:
        head (nn.Module): The stock head.
        embed_dims (int): Channels of the tokens.
        shared (bool): Whether the head classifies regions too.

    Raises:
        ValueError: If the head is for several labels per image or has no criterion, if the criterion takes no soft
            labels or is for other classes, or if the head cannot classify mean tokens.
    """
    name = type(head).__name__
    classes = None if head is None else count_classes(head)
    if classes is None or not isinstance(getattr(head, 'loss_module', None), nn.Module):
        raise ValueError(
            f'head of MixingClassifier has to be one with num_classes and a loss_module, such as LinearClsHead or '
            f'VisionTransformerClsHead, but got {name}'
        )
    if isinstance(head, MultiLabelClsHead):
        raise ValueError(
            f'head of MixingClassifier has to be one for one label per image, such as LinearClsHead, but got {name}: '
            f'shares and the consistency loss are not defined for several labels'
        )
    of_loss = getattr(head.loss_module, 'num_classes', None)
    if of_loss not in (None, classes):
        raise ValueError(
            f'num_classes of head is {classes}, but head.loss.num_classes is {of_loss}; both, and num_classes of '
            f'data_preprocessor, have to be the number of classes'
        )
    logits, targets = torch.zeros(2, classes), torch.full((2, classes), 1 / classes)
    try:
        # A copy, because some criteria update their state in each call.
        loss = copy.deepcopy(head.loss_module)(logits, targets, avg_factor=2)
        fits = loss.ndim == 0
    except Exception as error:
        raise ValueError(
            f'loss {type(head.loss_module).__name__} of {name} cannot take soft labels: {error}'
        ) from error
    if not fits:
        raise ValueError(
            f'loss {type(head.loss_module).__name__} of {name} has to return a scalar, but got {tuple(loss.shape)}'
        )
    if not shared:
        return
    try:
        with torch.no_grad():
            scores = head((torch.zeros(2, embed_dims),))
        fits = scores.shape == (2, classes)
    except Exception as error:
        raise ValueError(
            f"region_head='shared' needs a head that classifies mean tokens of {embed_dims} channels, but {name} "
            f"cannot: {error}; use region_head='separate'"
        ) from error
    if not fits:
        raise ValueError(f"region_head='shared' needs a head that gives (B, {classes}) logits, but {name} does not")


def check_teacher(
    teacher: Teacher | None, method: MixingMethod, num_classes: int, data_preprocessor: nn.Module, owner: str
) -> None:
    """Refuses a method whose questions need a teacher, if there is none or it cannot answer them.

    Args:
        teacher (Teacher, optional): Of the classifier.
        method (MixingMethod): The method, its questions settled.
        num_classes (int): Classes of the model under training.
        data_preprocessor (nn.Module): Of the model under training, whose images the teacher gets.
        owner (str): Class of the classifier, named in errors.

    Raises:
        ValueError: If a teacher is needed, and there is none or it cannot answer the questions.
    """
    name, questions = type(method).__name__, [question for question in method.questions if question.needs_teacher]
    asked = list(dict.fromkeys(part for question in questions for part in question.asked))
    if any(question.score == 'class_activation' for question in questions):
        asked.append('class_activation')
    if asked and teacher is None:
        raise ValueError(
            f'{name} needs a teacher for {", ".join(asked)}, but teacher of {owner} is None: set '
            f"teacher=dict(type='mmpretrain.ImageClassifier', ..., init_cfg=dict(type='Pretrained', checkpoint=...))"
        )
    if teacher is not None:
        teacher.check(asked, name, num_classes, data_preprocessor)


def check_scores(method: MixingMethod, model: TrainedModel, teacher: Teacher | None) -> None:
    """Refuses a method whose questions are for a score that the asked model cannot give.

    Args:
        method (MixingMethod): The method, its questions settled and its teacher checked.
        model (TrainedModel): The model under training.
        teacher (Teacher, optional): Of the classifier.

    Raises:
        ValueError: If the backbone has no attention that is read, or the classifier cannot be applied to single tokens.
    """
    name = type(method).__name__
    for question in method.questions:
        adapter = teacher.adapter if question.needs_teacher else model.adapter
        if question.score == 'attention' and not adapter.has_attention:
            raise ValueError(
                f"score='attention' of {name} needs a backbone whose attention is read, but that of "
                f"{type(adapter.backbone).__name__} is not; set score=None, 'activation' or 'class_activation'"
            )
        if question.score == 'class_activation':
            try:
                check_class_scores(teacher.model if question.needs_teacher else model, adapter.embed_dims)
            except ValueError as error:
                whose = 'teacher' if question.needs_teacher else 'model'
                raise ValueError(
                    f"score='class_activation' of {name} needs the classifier of the {whose} at every token: {error}; "
                    f"set score=None, 'attention' or 'activation'"
                ) from error


def check_alignment(size: tuple[int, int], grid: tuple[int, int], adapter: Adapter) -> None:
    """Refuses images that the token grid does not split evenly, since the backbone pads them or leaves pixels out.

    Args:
        size (tuple[int, int]): Height and width of the images in pixels.
        grid (tuple[int, int]): Rows and columns of tokens.
        adapter (Adapter): Of the backbone.

    Raises:
        ValueError: If the size is not a multiple of the stride; it names both.
    """
    stride = adapter.stride
    if size != (grid[0] * stride[0], grid[1] * stride[1]):
        raise ValueError(
            f'sides of the images have to be multiples of {stride[0]} x {stride[1]} pixels, the stride of '
            f'{type(adapter.backbone).__name__}, for regions to be mixed, but got {size[0]} x {size[1]}'
        )


def without_batch_augments(data_preprocessor: dict | nn.Module | None) -> dict | nn.Module:
    """Keeps ``ImageClassifier`` from handing ``train_cfg`` to the data preprocessor, which would mix a second time.

    Args:
        data_preprocessor (dict | nn.Module, optional): As the classifier gets it.

    Returns:
        dict | nn.Module: The same, without ``batch_augments``.

    Raises:
        ValueError: If it has ``batch_augments`` of its own.
    """
    if isinstance(data_preprocessor, nn.Module):
        augments = getattr(data_preprocessor, 'batch_augments', None)
    else:
        data_preprocessor = dict(data_preprocessor or {})
        augments = data_preprocessor.setdefault('batch_augments', None)
    if augments:
        raise ValueError(
            f'batch_augments of the data_preprocessor of MixingClassifier have to be empty, because the classifier '
            f'applies train_cfg.augments itself, but got {augments}'
        )
    return data_preprocessor


def set_one_hot_labels(data_preprocessor: nn.Module, num_classes: int) -> None:
    """Makes the data preprocessor check the labels of each batch, and turn them into one-hot labels.

    Args:
        data_preprocessor (nn.Module): mmpretrain's, changed in place.
        num_classes (int): Classes of the head.

    Raises:
        ValueError: If its ``num_classes`` is set to another number.
    """
    found = getattr(data_preprocessor, 'num_classes', None)
    if found not in (None, num_classes):
        raise ValueError(
            f'num_classes of data_preprocessor is {found}, but num_classes of head is {num_classes}; both, and '
            f'num_classes of head.loss, have to be the number of classes'
        )
    data_preprocessor.num_classes = num_classes
    data_preprocessor.to_onehot = True
    data_preprocessor.register_forward_pre_hook(_check_labels, with_kwargs=True)


def _check_labels(preprocessor: nn.Module, args: tuple, kwargs: Mapping) -> None:
    """Checks labels on the host: on a GPU a wrong one would fail with an assertion that does not name the image."""
    num_classes = preprocessor.num_classes
    data = args[0] if args else kwargs['data']
    training = args[1] if len(args) > 1 else kwargs.get('training', False)
    everything = data.get('data_samples') or []
    if training:
        _check_single_labels(everything)
    samples = [sample for sample in everything if 'gt_label' in sample]
    labels = [sample.gt_label for sample in samples]
    if not labels or any(label.device.type != 'cpu' or not label.numel() for label in labels):
        return
    lowest, highest = torch.cat(labels).aminmax()
    if lowest < 0 or highest >= num_classes:
        wrong = next(i for i, label in enumerate(labels) if label.min() < 0 or label.max() >= num_classes)
        raise ValueError(
            f'labels have to be between 0 and {num_classes - 1} for num_classes={num_classes} of the head, but '
            f'{samples[wrong].get("img_path", "a sample")} has {labels[wrong].tolist()}'
        )


def _check_single_labels(samples: list[DataSample]) -> None:
    for sample in samples:
        found, score = sample.get('gt_label'), sample.get('gt_score')
        if found is None and score is None:
            raise ValueError(
                f'images need labels to be trained on, but {sample.get("img_path", "a sample")} has none: neither '
                f'gt_label nor gt_score; set with_label=True in train_dataloader.dataset'
            )
        if found is not None and found.numel() != 1:
            raise ValueError(
                f'MixingClassifier needs one label per image, but {sample.get("img_path", "a sample")} has '
                f'{found.tolist()}: shares and the consistency loss are not defined for several labels'
            )
        if found is None and not math.isclose(float(score.sum()), 1, abs_tol=1e-3):
            raise ValueError(
                f'MixingClassifier needs one label per image or scores that sum to 1, but gt_score of '
                f'{sample.get("img_path", "a sample")} sums to {float(score.sum()):.3g}: shares and the consistency '
                f'loss are not defined for several labels'
            )
