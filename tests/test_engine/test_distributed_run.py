"""How distributed runs are set up, as far as one process can tell; tests/integration has the runs."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from smmix_mm.engine import distributed
from smmix_mm.engine.distributed import distributed_run, init_gloo, wrap_on_cpu
from smmix_mm.engine.strategies import FSDPStrategy, _clip_shards, is_transformer_block


def test_a_launcher_that_did_not_start_the_process_is_named(monkeypatch):
    for name in ('RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    for launcher, missing in (('pytorch', 'RANK'), ('slurm', 'SLURM_LOCALID'), ('mpi', 'OMPI_COMM_WORLD_RANK')):
        with pytest.raises(RuntimeError, match=f"launcher='{launcher}' needs .*{missing}"):
            init_gloo(launcher)
    with pytest.raises(ValueError, match="one of none, pytorch, slurm, mpi, but got 'torch'"):
        init_gloo('torch')


def test_slurm_without_the_name_of_its_first_machine(monkeypatch):
    for name, value in (('SLURM_PROCID', '0'), ('SLURM_NTASKS', '1'), ('SLURM_LOCALID', '0'), ('PATH', '')):
        monkeypatch.setenv(name, value)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        # So that what is translated to torchrun's variables is put back.
        monkeypatch.setenv(name, '0')
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.setenv('SLURM_NODELIST', 'n[1-2]')
    with pytest.raises(RuntimeError, match=r'scontrol show hostname n\[1-2\] does not name .* Set MASTER_ADDR'):
        init_gloo('slurm')


def test_ddp_on_the_cpu_names_no_device_and_keeps_what_was_set():
    cfg = Config(dict(find_unused_parameters=True))
    wrap_on_cpu(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False, find_unused_parameters=True
    )
    cfg = Config(dict(model_wrapper_cfg=dict(broadcast_buffers=True, bucket_cap_mb=5)))
    wrap_on_cpu(cfg)
    assert cfg.model_wrapper_cfg.device_ids is None
    assert (cfg.model_wrapper_cfg.broadcast_buffers, cfg.model_wrapper_cfg.bucket_cap_mb) == (True, 5)
    other = dict(type='MMFullyShardedDataParallel')
    cfg = Config(dict(model_wrapper_cfg=other))
    wrap_on_cpu(cfg)
    assert 'device_ids' not in cfg.model_wrapper_cfg


def test_flexible_runners_have_it_in_their_strategy():
    cfg = Config(dict(runner_type='FlexibleRunner'))
    wrap_on_cpu(cfg)
    assert cfg.strategy.type == 'DDPStrategy'
    assert cfg.strategy.model_wrapper.device_ids is None
    assert 'model_wrapper_cfg' not in cfg
    cfg = Config(dict(runner_type='FlexibleRunner', strategy=dict(type='smmix_mm.FSDPStrategy')))
    wrap_on_cpu(cfg)
    assert cfg.strategy == dict(type='smmix_mm.FSDPStrategy')


def test_a_single_process_is_left_alone():
    cfg = Config(dict(launcher='none'))
    with distributed_run(cfg):
        assert cfg.to_dict() == dict(launcher='none')
    with pytest.raises(KeyError), distributed_run(cfg):
        raise KeyError('as it was')


def test_the_timeout_of_the_config_is_that_of_gloo(monkeypatch):
    found = {}
    monkeypatch.setattr(
        distributed, 'init_gloo', lambda *args: found.update(zip(('launcher', 'timeout'), args, strict=True))
    )
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cpu')
    with distributed_run(Config(dict(launcher='slurm', env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=90))))):
        pass
    assert (found['launcher'], found['timeout'].total_seconds()) == ('slurm', 90)


def test_fsdp_without_processes_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"launcher is 'none': start with tools/dist_train\.sh"):
        FSDPStrategy(work_dir=str(tmp_path), env_kwargs=dict(launcher='none', randomness=dict(seed=0)))


def test_a_gradient_that_is_not_finite_is_an_error_where_clipping_says_so():
    sharded = SimpleNamespace(clip_grad_norm_=lambda max_norm, norm_type: torch.tensor(float('inf')))
    assert _clip_shards(sharded, [], max_norm=1.0).isinf()
    with pytest.raises(RuntimeError, match=r'norm of order 2\.0 of all gradients is inf; set clip_grad'):
        _clip_shards(sharded, [], max_norm=1.0, error_if_nonfinite=True)


def test_methods_that_follow_the_model_are_refused_under_fsdp(make_classifier):
    model = make_classifier('vit', augments=[dict(type='smmix_mm.AutoMix'), dict(type='smmix_mm.SMMix')])
    with pytest.raises(ValueError, match=r'^AutoMix copies parameters of the model'):
        FSDPStrategy._wrap_model(None, model)


@pytest.mark.parametrize(('family', 'blocks'), [('vit', 3), ('pvt', 6), ('cait', 5), ('swin', 4)])
def test_units_of_fsdp_are_the_blocks(make_backbone, family, blocks):
    backbone = make_backbone(family)
    units = [module for module in backbone.modules() if is_transformer_block(module, False, 0)]
    assert len(units) == blocks
    assert all(is_transformer_block(module, True, 0) for module in (backbone, nn.Linear(1, 1)))
