"""One model on several datasets, of which some are at fault."""

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, METRICS
from mmengine.runner import Runner
from tiny_runs import Mean, Points, registered  # noqa: F401

pytestmark = pytest.mark.usefixtures('registered')


class Numbers(Points):
    """``first``, ``first + 1``, ...; may fail while it is built or read."""

    def __init__(self, first=0, count=5, fails=None):
        super().__init__(count)
        self.first, self.fails = first, fails
        if fails == 'built':
            raise FileNotFoundError('there is no folder')

    def __getitem__(self, index):
        if self.fails == 'read' and index == 3:
            raise OSError('image 3 cannot be read')
        return dict(inputs=self.first + index)


class Count(Mean):
    def process(self, data_batch, data_samples):
        self.results.extend(data_batch['inputs'])

    def compute_metrics(self, results):
        return dict(count=len(results), highest=max(results))


class WhatHooksSee(Hook):
    def __init__(self):
        self.lengths, self.metrics = [], []

    def after_test_epoch(self, runner, metrics=None):
        self.lengths.append(len(runner.test_dataloader))
        self.metrics.append(metrics)


@pytest.fixture
def parts():
    for registry, part in ((DATASETS, Numbers), (METRICS, Count)):
        registry.register_module(module=part)
    yield
    for registry, part in ((DATASETS, Numbers), (METRICS, Count)):
        registry.module_dict.pop(part.__name__)


@pytest.mark.usefixtures('parts')
def test_each_dataset_is_tested_and_faults_are_named(tmp_path):
    sets = dict(
        five=dict(dataset=dict(type='Numbers')),
        absent=dict(dataset=dict(type='Numbers', fails='built')),
        broken=dict(dataset=dict(type='Numbers', fails='read')),
        two=dict(dataset=dict(type='Numbers', first=40, count=2), evaluator=[dict(type='Count', prefix='other')]),
    )
    runner = Runner.from_cfg(
        Config(
            dict(
                model=dict(type='TinyModel'),
                work_dir=str(tmp_path),
                experiment_name='several_tests',
                # Its own dataset is not built.
                test_dataloader=dict(
                    batch_size=2,
                    num_workers=0,
                    dataset=dict(type='Numbers', fails='built'),
                    sampler=dict(type='DefaultSampler', shuffle=False),
                ),
                test_evaluator=dict(type='Count'),
                test_cfg=dict(type='smmix_mm.MultiTestLoop', sets=sets),
                log_level='CRITICAL',
            )
        )
    )
    hook = WhatHooksSee()
    runner.register_hook(hook)
    runner.model.test_step = lambda data: [0.0] * len(data['inputs'])
    metrics = runner.test()
    assert metrics == dict(five=dict(count=5, highest=4), two={'other/count': 2, 'other/highest': 41})
    assert runner.test_loop.sizes == dict(five=5, two=2)
    assert runner.test_loop.failures == dict(
        absent='FileNotFoundError: there is no folder', broken='OSError: image 3 cannot be read'
    )
    # Batches of two: those of the dataset under test, and its metrics.
    assert hook.lengths == [3, 1]
    assert hook.metrics == list(metrics.values())
