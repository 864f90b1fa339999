"""Counts the FLOPs and the parameters of a model of mmpretrain, mmdet or mmseg for one image.

The counter is mmengine's, to which the fused attention is added. A multiplication and its addition count as one FLOP,
as in the papers. Counted are convolutions, linear layers, products of matrices (attention) and normalisation; not
activation functions, softmax and other operations on single elements.
"""

import argparse
from collections import Counter
from functools import partial
from math import prod
from typing import Any

import torch
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer
from mmengine.analysis.print_helper import complexity_stats_table
from mmengine.config import DictAction
from torch import nn

from smmix_mm.datasets.own_data import read_config
from smmix_mm.engine import build_model
from smmix_mm.models.pretrained import TRAINING_ONLY

# Height and width: of test images in classification and mmdet's setting for COCO, and of training crops in mmseg's for
# ADE20K.
SHAPES = dict(mmpretrain=(224, 224), mmdet=(800, 1333), mmseg=(512, 512))


def count_fused_attention(inputs: list[Any], _: list[Any]) -> Counter[str]:
    """Counts the two products of queries and keys, and of attention and values.

    Args:
        inputs (list): What ``aten::scaled_dot_product_attention`` is called with, as torch's tracer knows it: queries
            ``(..., N, D)``, keys ``(..., M, D)``, values ``(..., M, E)``, and settings.

    Returns:
        Counter: The FLOPs by the name ``'attention'``.
    """
    queries, keys, values = (value.type().sizes() for value in inputs[:3])
    return Counter(attention=prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1]))


def count_batched_product(inputs: list[Any], _: list[Any]) -> Counter[str]:
    """Counts ``aten::baddbmm``: a sum and the product of ``(B, N, M)`` and ``(B, M, P)``."""
    left, right = (value.type().sizes() for value in inputs[1:3])
    return Counter(baddbmm=prod(left) * right[-1])


def analyze(model: nn.Module, shape: tuple[int, int]) -> tuple[FlopAnalyzer, ActivationAnalyzer]:
    """Traces a model on one black image.

    Args:
        model (nn.Module): A classifier, detector or segmentor. Set to evaluation mode.
        shape (tuple): Height and width of the image, before the padding that the model needs.
    """
    model.eval()
    image = torch.zeros(3, *shape)
    if hasattr(model, 'rpn_head') or hasattr(model, 'bbox_head'):
        from mmdet.structures import DetDataSample

        metainfo = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
        data = model.data_preprocessor(dict(inputs=[image], data_samples=[DetDataSample(metainfo=metainfo)]))
        model.forward = partial(model.forward, data_samples=data['data_samples'])
        inputs = data['inputs']
    else:
        inputs = image[None]
    counter = FlopAnalyzer(model, (inputs,)).set_op_handle(
        **{
            'aten::scaled_dot_product_attention': count_fused_attention,
            'aten::baddbmm': count_batched_product,
        }
    )
    return counter, ActivationAnalyzer(model, (inputs,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        help='height and width of the image, or one number for both; default: img_size of the backbone or 224 224 in '
        'classification, 800 1333 in detection, 512 512 in segmentation',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    args = parser.parse_args()
    cfg = read_config(args.config, args.cfg_options)
    scope = cfg.get('default_scope')
    size = cfg.model.backbone.get('img_size') if scope == 'mmpretrain' else None
    shape = args.shape or ([size] if isinstance(size, int) else size) or SHAPES.get(scope, (224, 224))
    if len(shape) > 2:
        parser.error(f'--shape takes one or two numbers, but got {shape}')
    shape = (shape[0], shape[-1])
    # Weights are drawn, not loaded; they do not matter.
    model = build_model(cfg)
    flops, activations = analyze(model, shape)
    print(complexity_stats_table(flops, activations=activations))
    parameters = sum(
        parameter.numel() for name, parameter in model.named_parameters() if name.partition('.')[0] not in TRAINING_ONLY
    )
    print(f'Input shape: (3, {shape[0]}, {shape[1]})')
    print(f'FLOPs: {flops.total() / 1e9:.2f} G (multiply-adds)')
    print(f'Parameters: {parameters / 1e6:.2f} M')


if __name__ == '__main__':
    main()
