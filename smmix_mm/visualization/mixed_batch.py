"""Pictures of mixed batches."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from smmix_mm.adapters.base import evaluating
from smmix_mm.functional import Box
from smmix_mm.mixing import MixingMethod, ResizeMix, SMMix, step_streams
from smmix_mm.mixing.base import Answers
from smmix_mm.models import MixingClassifier
from smmix_mm.streams import Streams
from smmix_mm.structures import MixedBatch

from .panels import Panel, describe_shares, draw_panels, overlay, save_figure, shorten_name, to_pictures

CUT, PASTED = 'red', 'cyan'


@dataclass(frozen=True)
class Mixture:
    """What a method made of a batch.

    Attributes:
        images: The unmixed images ``(B, C, H, W)``.
        mixed: The mixed images, same shape.
        shares: ``(B, B)``; ``shares[b, i]`` is the share of image ``i``'s label in that of mixed image ``b``.
        sources: ``(B,)``, the source of each image: the other image whose label it has, or else the image itself.
        scores: What the unmixed images told the method ``(B, h, w)``; None if it asked for nothing like it.
        score_name: Name of the scores, such as ``'attention'``.
        by_teacher: Whether a teacher told them.
        cut: The box in pixels (top, left, bottom, right) that was cut from the source of each image; None if the
            method has none.
        pasted: The box that was pasted over in each image.
    """

    images: Tensor
    mixed: Tensor
    shares: Tensor
    sources: Tensor
    scores: Tensor | None = None
    score_name: str = ''
    by_teacher: bool = False
    cut: list[Box] | None = None
    pasted: list[Box] | None = None


@torch.no_grad()
def trace_mixing(
    model: MixingClassifier, method: MixingMethod, images: Tensor, targets: Tensor, streams: Streams
) -> Mixture:
    """Mixes a batch as a training step does, and finds out what was mixed with what, whatever the method.

    The model is in evaluation mode meanwhile, and the streams are not advanced. What a method does before each step is
    done once, such as moving AutoMix's momentum model.

    Args:
        model (MixingClassifier): Answers the questions of the method.
        method (MixingMethod): Any method.
        images (Tensor): Preprocessed, ``(B, C, H, W)``; not changed.
        targets (Tensor): One-hot labels ``(B, classes)``.
        streams (Streams): What the method draws from.
    """
    batch, classes = targets.shape
    shares, mixed, features = [], None, None
    with evaluating(model):
        method.before_step(model, streams.progress)
        answers = model.answer(method.questions, images, targets)
        # The batch is mixed with each image in a class of its own, so that the mixed labels tell the images apart. If
        # it has more images than there are classes, this takes several turns.
        for own_class in torch.eye(batch, device=images.device).split(classes, dim=1):
            labels = F.pad(own_class, (0, classes - own_class.shape[1]))
            mixed = method(images.clone(), labels, answers, copy.deepcopy(streams))
            if features is None:
                features = model.adapter.read(mixed.images, class_attention=method.reads_class_attention)
            shares.append(method.relabel(features, mixed)[:batch, : own_class.shape[1]])
    shares = torch.cat(shares, dim=1)
    # A share may be a little below 0, see TokenMix.
    others = (shares - shares.diag().diag()).abs()
    sources = torch.where(others.amax(dim=1) > 0, others.argmax(dim=1), torch.arange(batch, device=images.device))
    cut, pasted = _find_boxes(method, mixed, images)
    name, scores, by_teacher = _find_scores(model, method, answers)
    # AutoMix has the unmixed images after the mixed ones.
    return Mixture(images, mixed.images[:batch], shares, sources, scores, name, by_teacher, cut, pasted)


def draw_mixtures(
    model: MixingClassifier,
    mixtures: Mapping[str, Mixture],
    labels: Sequence[str],
    title: str = '',
    num_rows: int | None = None,
) -> Figure:
    """Draws target, source, what was told about both, and the mixed images of one batch, one row per image.

    Args:
        model (MixingClassifier): Has the normalisation of the images.
        mixtures (Mapping[str, Mixture]): One or several of the same batch and the same pairs, by the names of their
            methods. Scores and boxes shown are those of the first.
        labels (Sequence[str]): Names of the images' classes.
        title (str): Above all. Defaults to none.
        num_rows (int, optional): Number of images shown. Defaults to None, all.

    Raises:
        ValueError: If the methods pair the images differently, or the model does not normalise images.
    """
    first, *others = mixtures.values()
    if any(not torch.equal(first.sources, other.sources) for other in others):
        raise ValueError(f'{", ".join(mixtures)} pair the images differently; draw one of them at a time')
    pictures = to_pictures(model.data_preprocessor, first.images)
    mixed = {name: to_pictures(model.data_preprocessor, mixture.mixed) for name, mixture in mixtures.items()}
    heat = None if first.scores is None else overlay(pictures, first.scores)
    rows = []
    for index in range(min(num_rows or len(labels), len(labels))):
        source = int(first.sources[index])
        row = []
        for role, image, boxes, colour, what in (
            ('target', index, first.pasted, PASTED, 'pasted over'),
            ('source', source, first.cut, CUT, 'cut'),
        ):
            box = [(boxes[index], colour)] if boxes else []
            told = f"{role}'s {first.score_name}" + ('\nby the teacher' if first.by_teacher else '')
            note = f'{what}: {colour}' if boxes else ''
            name = shorten_name(labels[image])
            if heat is None:
                row.append(Panel(pictures[image], role, '\n'.join(filter(None, (name, note))), box))
            else:
                row += [Panel(pictures[image], role, name), Panel(heat[image], told, note, box)]
        for name, mixture in mixtures.items():
            row.append(Panel(mixed[name][index], name, describe_shares(labels, mixture.shares[index].tolist())))
        # The titles of the first row stand for all.
        rows.append(row if not rows else [Panel(panel.pixels, '', panel.caption, panel.boxes) for panel in row])
    return draw_panels(rows, title, '' if heat is None else first.score_name)


def draw_mixed_batch(
    model: MixingClassifier, images: Tensor, labels: list[str], path: str | Path, seed: int = 0
) -> None:
    """Saves a picture with one row per image: target and source with their attention, mixed by SMMix and by CutMix.

    Both methods mix the same pairs with a region of the same size; they differ in where it is cut and pasted.

    Args:
        model (MixingClassifier): Provides the attention and the normalisation of the images.
        images (Tensor): Preprocessed, ``(B, 3, H, W)``; the source of image ``b`` is image ``B - 1 - b``.
        labels (list[str]): Names of the images' classes.
        path (str | Path): Path of the PNG file. Missing folders are created.
        seed (int): Seed of the draws. Defaults to 0.

    Raises:
        ValueError: If the model was built without its preprocessing, so that it does not normalise images.
    """
    targets = torch.eye(len(images), device=images.device)
    mixtures = {
        name: trace_mixing(
            model, SMMix(placement=placement, loss=dict(con_weight=0.0)), images, targets, step_streams(seed, 0)
        )
        for name, placement in (('SMMix', 'max_min'), ('CutMix', 'cutmix'))
    }
    save_figure(draw_mixtures(model, mixtures, labels), path)


def name_method(method: MixingMethod) -> str:
    """Name of a method's class, or of the stock augmentation in it."""
    return type(getattr(method, 'augment', method)).__name__


def _find_boxes(method: MixingMethod, mixed: MixedBatch, images: Tensor) -> tuple[list[Box] | None, list[Box] | None]:
    """Boxes in pixels that were cut from the source of each image and pasted into it, each None if there is none."""
    if mixed.source_box is not None:
        boxes = [mixed.source_box] * len(images)
        # ResizeMix pastes the whole source, made smaller.
        return None if isinstance(method, ResizeMix) else boxes, boxes
    if mixed.source_mask is None or mixed.source_corners is None:
        return None, None
    height, width = (
        side // tokens for side, tokens in zip(images.shape[-2:], mixed.source_mask.shape[-2:], strict=True)
    )
    cut, pasted = [], []
    for mask, (cut_row, cut_col) in zip(mixed.source_mask, mixed.source_corners.tolist(), strict=True):
        (top, left), (bottom, right) = mask.nonzero().amin(dim=0).tolist(), (mask.nonzero().amax(dim=0) + 1).tolist()
        for boxes, row, col in ((cut, cut_row, cut_col), (pasted, top, left)):
            boxes.append((row * height, col * width, (row + bottom - top) * height, (col + right - left) * width))
    return cut, pasted


def _find_scores(model: MixingClassifier, method: MixingMethod, answers: Answers) -> tuple[str, Tensor | None, bool]:
    """The map that the unmixed images were asked for, its name, and whether a teacher gave it."""
    for question, answer in zip(method.questions, answers, strict=True):
        by_teacher = model.teacher is not None and question.by != 'model'
        if answer.attention is not None:
            adapter = model.teacher.adapter if by_teacher else model.adapter
            score = question.score or ('attention' if adapter.has_attention else 'activation')
            return score.replace('_', ' '), answer.attention, by_teacher
        for name in ('class_map', 'activation'):
            if getattr(answer, name) is not None:
                return name.replace('_', ' '), getattr(answer, name), by_teacher
        if answer.input_gradient is not None:
            return 'gradient', answer.input_gradient.norm(dim=1), by_teacher
    return '', None, False
