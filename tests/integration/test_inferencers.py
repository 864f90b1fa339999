"""The libraries' own inferencers take the configs, as whoever has trained a model would use them."""

import cv2
import numpy as np
import pytest
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.registry import DefaultScope
from mmpretrain.apis import ImageClassificationInferencer
from mmseg.apis import MMSegInferencer, inference_model, init_model
from processes import ROOT

DETECTOR = str(ROOT / 'configs/mask_rcnn/mask-rcnn_pvt-mini-scratch_fpn_1xb8-3e_digit-scenes.py')
SEGMENTOR = str(ROOT / 'configs/sem_fpn/fpn_pvt-mini-scratch_1xb8-300_digit-scenes-128x128.py')
CLASSIFIER = str(ROOT / 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py')

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(params=['file', 'array'])
def picture(request, tmp_path):
    """Neither side a multiple of 32."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 141, 3), dtype=np.uint8)
    if request.param == 'array':
        return pixels
    cv2.imwrite(str(tmp_path / 'picture.png'), pixels)
    return str(tmp_path / 'picture.png')


def test_detector(picture):
    (prediction,) = DetInferencer(DETECTOR, device='cpu')(picture)['predictions']
    assert {'labels', 'scores', 'bboxes'} <= prediction.keys()
    with DefaultScope.overwrite_default_scope('mmdet'):
        sample = inference_detector(init_detector(DETECTOR, device='cpu'), picture)
    assert sample.pred_instances.masks.shape[1:] == (100, 141)


def test_segmentor(picture):
    label_map = MMSegInferencer(SEGMENTOR, device='cpu')(picture)['predictions']
    assert label_map.shape == (100, 141)
    with DefaultScope.overwrite_default_scope('mmseg'):
        sample = inference_model(init_model(SEGMENTOR, device='cpu'), picture)
    assert sample.pred_sem_seg.data.shape == (1, 100, 141)


def test_classifier(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'picture.png'), pixels)
    inferencer = ImageClassificationInferencer(CLASSIFIER, device='cpu', classes=[str(digit) for digit in range(10)])
    (from_file,), (from_array,) = inferencer(str(tmp_path / 'picture.png')), inferencer(pixels)
    assert np.allclose(from_file['pred_scores'], from_array['pred_scores'], atol=1e-6)
