"""Pictures of predictions: their names, and small ones enlarged with all that is drawn on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from smmix_mm.engine import SavePictures
from smmix_mm.engine.hooks.save_pictures import enlarge_sample


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path):
    hook = SavePictures(tmp_path)
    names = [hook._name(Path(path)) for path in ('aachen/0.png', 'bonn/0.png', 'bonn/1.png', 'cologne/0.png')]
    assert names == ['0.png', '0_2.png', '1.png', '0_3.png']


@pytest.mark.parametrize('factor', [2, 3])
def test_instances_are_enlarged(factor):
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    box = torch.tensor([[2.0, 1.0, 5.0, 3.0]])
    predicted = InstanceData(
        bboxes=box, masks=torch.from_numpy(mask[None]), scores=torch.tensor([0.9]), labels=torch.tensor([4])
    )
    true = InstanceData(bboxes=HorizontalBoxes(box), masks=BitmapMasks(mask[None].astype(np.uint8), 4, 6))
    sample = DetDataSample(pred_instances=predicted, gt_instances=true)
    enlarged = enlarge_sample(sample, factor)
    for instances, masks in (
        (enlarged.pred_instances, enlarged.pred_instances.masks.numpy()),
        (enlarged.gt_instances, enlarged.gt_instances.masks.to_ndarray()),
    ):
        assert masks.shape == (1, 4 * factor, 6 * factor)
        rows, cols = np.nonzero(masks[0])
        left, top, right, bottom = instances.bboxes[0].tolist()
        assert (left, top, right, bottom) == (2 * factor, factor, 5 * factor, 3 * factor)
        assert (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1) == (left, top, right, bottom)
        assert len(rows) == (right - left) * (bottom - top)
    assert enlarged.pred_instances.labels.tolist() == [4]
    # The sample that the evaluation sees is left alone.
    assert enlarge_sample(sample, 1) is sample
    assert sample.pred_instances.bboxes.equal(box)


def test_label_maps_are_enlarged():
    labels = torch.arange(6).view(1, 2, 3)
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels), gt_sem_seg=PixelData(data=labels.flip(2)))
    enlarged = enlarge_sample(sample, 2)
    assert enlarged.pred_sem_seg.data[0].tolist() == np.kron(labels[0], np.ones((2, 2), int)).tolist()
    assert enlarged.gt_sem_seg.data[0, 0].tolist() == [2, 2, 1, 1, 0, 0]
    assert sample.pred_sem_seg.data.shape == (1, 2, 3)
