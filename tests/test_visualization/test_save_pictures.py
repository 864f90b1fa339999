"""Pictures of predictions: their names, and small ones enlarged with all that is drawn on them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import BaseDetDataset
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import RepeatDataset
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from smmix_mm.visualization import SavePictures
from smmix_mm.visualization.save_pictures import enlarge_sample


def test_pictures_of_one_name_do_not_replace_each_other(tmp_path):
    hook = SavePictures(tmp_path)
    paths = ('aachen/0.png', 'bonn/0.png', 'bonn/1.png', 'cologne/0.png')
    names = [hook._choose_file(path).name for path in paths]
    assert names == ['0.png', '0_2.png', '1.png', '0_3.png']
    # OpenCV writes no files of these kinds.
    names = [hook._choose_file(path).name for path in ('a/2.jfif', 'a/2.heic', 'a/2.jpg')]
    assert names == ['2.png', '2_2.png', '2.jpg']


class Recorder:
    """A visualizer that keeps what it is to draw on."""

    def __init__(self):
        self.calls = []

    def visualize_cls(self, image, sample, **options):
        self.image = image
        self.calls.append((Path(sample.img_path).name, options))


def drawn(folder, path, dataset) -> np.ndarray:
    """What predictions for a picture are drawn on."""
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset), visualizer=Recorder())
    hook = SavePictures(folder)
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, outputs=[DetDataSample(metainfo=dict(img_path=str(path)))])
    return runner.visualizer.image


def test_one_of_so_many_pictures_is_shown_in_a_window(tmp_path):
    """Over batches of any size; without a folder nothing is saved."""
    samples = []
    for index in range(5):
        Image.new('RGB', (8, 8)).save(tmp_path / f'{index}.png')
        samples.append(DetDataSample(metainfo=dict(img_path=str(tmp_path / f'{index}.png'))))
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset_of()), visualizer=Recorder())
    hook = SavePictures(None, interval=2, show=True, wait_time=3)
    hook.before_test(runner)
    for batch in (samples[:3], samples[3:]):
        hook.after_test_iter(runner, 0, outputs=batch)
    window = dict(out_file=None, show=True, wait_time=3)
    assert runner.visualizer.calls == [('0.png', window), ('2.png', window), ('4.png', window)]


def dataset_of(*pipeline):
    init_default_scope('mmdet')
    return BaseDetDataset(pipeline=pipeline, metainfo=dict(classes=('thing',)), lazy_init=True)


@pytest.mark.parametrize('settings', [
    dict(type='smmix_mm.LoadImage'),
    dict(type='smmix_mm.LoadImage', imdecode_backend='cv2', to_float32=True),
    dict(type='LoadImageFromFile', _scope_='smmix_mm'),
    dict(type='smmix_mm.LoadImage', color_type='grayscale'),
    dict(type='LoadImageFromFile'),
    None,
])  # fmt: skip
def test_pictures_are_drawn_as_they_are_read(tmp_path, settings):
    values = np.random.default_rng(0).integers(0, 65536, (400, 500), dtype=np.uint16)
    colours = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / '16.png')
    Image.fromarray(colours).save(tmp_path / 'rgb.png')
    dataset = dataset_of(*[settings] * (settings is not None))
    for name, expected in (('16.png', np.stack([values >> 8] * 3, axis=-1)), ('rgb.png', colours)):
        image = drawn(tmp_path, tmp_path / name, dataset)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(('color_type', 'turned'), [
    ('color', True), ('color_ignore_orientation', False), ('grayscale_ignore_orientation', False), ('unchanged', False)
])  # fmt: skip
@pytest.mark.parametrize('wrap', [lambda dataset: dataset, lambda dataset: RepeatDataset(dataset, 1, lazy_init=True)])
def test_pictures_are_turned_as_they_are_read(tmp_path, color_type, turned, wrap):
    pixels = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / 'picture.png', exif=exif)
    dataset = wrap(dataset_of(dict(type='smmix_mm.LoadImage', color_type=color_type)))
    expected = np.rot90(pixels, -1) if turned else pixels
    np.testing.assert_array_equal(drawn(tmp_path, tmp_path / 'picture.png', dataset), expected)


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


def test_panoptic_maps_are_enlarged():
    ids = torch.tensor([[[1, 1002], [3, 3]]])
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=ids), pred_sem_seg=PixelData(sem_seg=ids))
    enlarged = enlarge_sample(sample, 2)
    for field in (enlarged.pred_panoptic_seg, enlarged.pred_sem_seg):
        assert field.sem_seg.tolist() == [[[1, 1, 1002, 1002]] * 2 + [[3] * 4] * 2]
    assert sample.pred_panoptic_seg.sem_seg.equal(ids)


def test_label_maps_are_enlarged():
    labels = torch.arange(6).view(1, 2, 3)
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels), gt_sem_seg=PixelData(data=labels.flip(2)))
    enlarged = enlarge_sample(sample, 2)
    assert enlarged.pred_sem_seg.data[0].tolist() == np.kron(labels[0], np.ones((2, 2), int)).tolist()
    assert enlarged.gt_sem_seg.data[0, 0].tolist() == [2, 2, 1, 1, 0, 0]
    assert sample.pred_sem_seg.data.shape == (1, 2, 3)
