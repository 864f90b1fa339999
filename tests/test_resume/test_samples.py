import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.runner import Runner
from mmpretrain.datasets.samplers import RepeatAugSampler
from mmpretrain.structures import DataSample
from resumable import train_pipeline, write_images
from torch.utils.data import BatchSampler, Dataset

from smmix_mm.datasets.load_image import UnreadableImageError
from smmix_mm.datasets.replacement import MAX_REPLACEMENTS
from smmix_mm.resume.samples import KeyedBatches, ResumableLoader, SampleKey, SeededDataset

IMAGES = 20


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'), IMAGES)


@pytest.fixture
def build(images):
    """A loader of augmented pictures, as a run builds it."""

    def build(num_workers=0, seed=3, sampler='DefaultSampler', endless=False, **settings):
        cfg = dict(
            batch_size=3,
            num_workers=num_workers,
            sampler=dict(type=sampler, shuffle=True),
            dataset=dict(type='mmpretrain.CustomDataset', data_root=str(images), pipeline=train_pipeline()),
            **settings,
        )
        return ResumableLoader(Runner.build_dataloader(cfg, seed=7), seed, endless)

    return build


def read(batches):
    """Pictures and labels of batches."""
    return [
        (torch.stack(batch['inputs']), torch.cat([sample.gt_label for sample in batch['data_samples']]))
        for _, batch in batches
    ]


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for (images, labels), (others, other_labels) in zip(left, right, strict=False):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize('num_workers', [1, 2, 4])
def test_batches_are_the_same_with_any_number_of_workers(build, num_workers):
    alone, shared = build(), build(num_workers, persistent_workers=True)
    for epoch in (0, 1):
        for loader in (alone, shared):
            loader.batch_sampler.sampler.set_epoch(epoch)
        assert_same(read(alone.batches_from(0)), read(shared.batches_from(0)))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_batches_after_a_skip_are_those_of_the_whole_epoch(build, num_workers):
    whole = read(build().batches_from(0))
    assert len(whole) == 7
    assert_same(read(build(num_workers).batches_from(4)), whole[4:])


def test_endless_batches_go_on_in_a_later_pass(build):
    loader = build(endless=True)
    batches = loader.batches_from(0)
    whole = read(next(batches) for _ in range(20))
    for start in (5, 7, 16):
        batches = build(endless=True).batches_from(start)
        assert_same(read(next(batches) for _ in range(3)), whole[start : start + 3])
    # Each pass has its own order, and its own augmentation of the same picture.
    assert not torch.equal(torch.cat([labels for _, labels in whole[:7]]), torch.cat([la for _, la in whole[7:14]]))


@pytest.mark.parametrize(('seed', 'epoch'), [(4, 0), (3, 1)])
def test_augmentation_depends_on_seed_and_epoch(build, seed, epoch):
    def picture(seed, epoch):
        return build(seed=seed).dataset[SampleKey(5, seed, epoch)]['inputs']

    assert torch.equal(picture(3, 0), picture(3, 0))
    assert not torch.equal(picture(3, 0), picture(seed, epoch))


def test_the_process_keeps_its_own_random_states(build):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    drawn = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    build().dataset[SampleKey(5, 3, 0)]
    assert (torch.rand(1), random.random(), np.random.rand()) == drawn


class Numbers(Dataset):
    """Knows its samples by number, and some that cannot be read."""

    def __init__(self, count=10, unreadable=(), packed=True):
        self.count = count
        self.unreadable = unreadable
        self.packed = packed
        self.pipeline = 'first'

    def __len__(self):
        return self.count

    def get_data_info(self, index):
        # Pictures of two shapes.
        assert type(index) is int
        return dict(width=1 + index % 2, height=2)

    def __getitem__(self, index):
        if index in self.unreadable:
            raise UnreadableImageError(f'image {index}.jpg cannot be read')
        return dict(inputs=index, data_samples=DataSample()) if self.packed else index


def keys(batches, count):
    stream = iter(batches)
    return [[(int(key), key.epoch, key.position) for key in next(stream)] for _ in range(count)]


def test_infinite_samplers_are_keyed_by_the_pass_over_the_data(monkeypatch):
    """With 10 samples, 2 ranks and batches of 3, the second rank's fourth pass begins in its sixth batch."""
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (1, 2))
    monkeypatch.setattr('smmix_mm.resume.samples.get_dist_info', lambda: (1, 2))
    batches = KeyedBatches(BatchSampler(InfiniteSampler(Numbers(), seed=0), 3, False), seed=3, endless=True)
    drawn = [key for batch in keys(batches, 20) for key in batch]
    assert [epoch for _, epoch, _ in drawn] == [(2 * position + 1) // 10 for position in range(60)]
    # In one pass a rank meets no sample twice.
    for start in range(0, 60, 5):
        assert len({index for index, _, _ in drawn[start : start + 5]}) == 5


def test_samplers_that_repeat_samples_draw_each_anew():
    sampler = RepeatAugSampler(Numbers(), num_repeats=3, seed=0)
    drawn = [key for batch in keys(KeyedBatches(BatchSampler(sampler, 5, False), seed=3), 2) for key in batch]
    assert len({index for index, _, _ in drawn}) < len(drawn) == len(set(drawn))


def test_batches_by_aspect_ratio_are_keyed_too():
    mmdet_samplers = pytest.importorskip('mmdet.datasets.samplers')
    sampler = InfiniteSampler(Numbers(), seed=0)
    whole = KeyedBatches(mmdet_samplers.AspectRatioBatchSampler(sampler, 3), seed=3, endless=True)
    drawn = keys(whole, 12)
    assert all(len({index % 2 for index, _, _ in batch}) == 1 for batch in drawn)
    assert len({key for batch in drawn for key in batch}) == 36
    sampler = InfiniteSampler(Numbers(), seed=0)
    later = KeyedBatches(mmdet_samplers.AspectRatioBatchSampler(sampler, 3), seed=3, endless=True)
    later.skip(5)
    assert keys(later, 7) == drawn[5:]


def test_keys_and_datasets_survive_the_way_to_a_worker():
    key = pickle.loads(pickle.dumps(SampleKey(5, 3, 1, 7)))
    assert (key, key.seed, key.epoch, key.position) == (5, 3, 1, 7)
    dataset = pickle.loads(pickle.dumps(SeededDataset(Numbers(count=4))))
    assert len(dataset) == dataset.count == 4


def test_what_is_set_on_the_dataset_reaches_the_wrapped_one():
    """mmdet's hooks exchange the pipeline so."""
    numbers = Numbers()
    SeededDataset(numbers).pipeline = 'second'
    assert numbers.pipeline == 'second'


def test_an_unreadable_image_is_replaced_and_marked():
    dataset = SeededDataset(Numbers(unreadable=(4, 7)))
    sample = dataset[SampleKey(4, 3, 0)]
    assert sample['inputs'] not in (4, 7)
    assert sample['data_samples'].replaced[0] == 'image 4.jpg cannot be read'
    assert 'replaced' in sample['data_samples'].metainfo_keys()
    assert dataset[SampleKey(4, 3, 0)]['inputs'] == sample['inputs']
    assert 'replaced' not in dataset[SampleKey(5, 3, 0)]['data_samples']
    # Another epoch, another replacement.
    assert len({dataset[SampleKey(4, 3, epoch)]['inputs'] for epoch in range(8)}) > 1


@pytest.mark.parametrize(
    'dataset', [Numbers(unreadable=range(10)), Numbers(unreadable=(4,), packed=False)], ids=['all', 'nowhere to mark']
)
def test_an_image_that_cannot_be_replaced_is_an_error(dataset):
    with pytest.raises(UnreadableImageError, match=r'image \d.jpg cannot be read'):
        SeededDataset(dataset)[SampleKey(4, 3, 0)]
    assert MAX_REPLACEMENTS > 1


def test_corrupt_and_missing_files_are_replaced(build):
    """By real files, in worker processes."""
    loader = build(num_workers=2)
    paths = [loader.dataset.get_data_info(index)['img_path'] for index in range(2)]
    contents = [Path(path).read_bytes() for path in paths]
    Path(paths[0]).write_bytes(contents[0][:100])
    Path(paths[1]).unlink()
    try:
        replaced = [
            message
            for _, batch in loader.batches_from(0)
            for sample in batch['data_samples']
            for message in sample.get('replaced', [])
        ]
    finally:
        for path, content in zip(paths, contents, strict=False):
            Path(path).write_bytes(content)
    assert {path for path in paths if any(path in message for message in replaced)} == set(paths)


def test_a_dataset_without_indices_is_refused():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield 0

    with pytest.raises(TypeError, match=r'cannot be resumed exactly: Endless has no batches by index'):
        ResumableLoader(torch.utils.data.DataLoader(Endless()), seed=3)
