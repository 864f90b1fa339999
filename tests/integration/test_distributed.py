"""Training in several processes that communicate by gloo, against the same computed in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_worker as worker
import pytest
import torch
from processes import ROOT, free_port, run, scalars, start

from smmix_mm.compat import FSDP_ON_CPU

DEMO = 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'
CASES = list(worker.CASES)
DDP, FSDP = ('ddp', 'ddp_amp', 'ddp_value'), ('fsdp', 'fsdp_amp', 'fsdp_value')
FSDP_CASES = ('SMMix', 'Mixup+SMMix')
needs_fsdp = pytest.mark.skipif(not FSDP_ON_CPU, reason='torch 2.1 shards on GPUs alone')
ACCUMULATED = 'Mixup+SMMix'
WORKER = ROOT / 'tests/helpers/distributed_worker.py'


def torchrun(folder: Path, processes: int, cases: list[str], timeout: int = 300) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}', '--']
    return subprocess.run(
        [*command, WORKER, folder, *cases],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT / 'tests')},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def launch(folder: Path, processes: int, cases: list[str]) -> str:
    """Runs cases in processes of their own, all of which have to end with status 0; torchrun sees to that."""
    done = torchrun(folder, processes, cases)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What two processes computed: ``two(case)`` gives the results of both ranks."""
    folder = tmp_path_factory.mktemp('two')
    cases = [
        *(f'train:{case}' for case in CASES),
        f'accumulate:{ACCUMULATED}',
        *(f'{kind}:{case}' for kind in (*DDP, *(FSDP if FSDP_ON_CPU else [])) for case in FSDP_CASES),
        'ema:SMMix',
    ]
    # As torchrun does it, but from warm processes.
    launched = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    outputs = [folder / f'{rank}.txt' for rank in range(2)]
    ranks = [
        start(WORKER, folder, *cases, outputs=[output, output], RANK=str(rank), LOCAL_RANK=str(rank), **launched)
        for rank, output in enumerate(outputs)
    ]
    for process in ranks:
        process.join(300)
    assert [process.exitcode for process in ranks] == [0, 0], outputs[0].read_text()[-3000:]

    def results(case: str) -> list[dict]:
        return [torch.load(folder / f'{case}-{rank}of2.pt', weights_only=False) for rank in range(2)]

    results.outputs = [output.read_text() for output in outputs]
    return results


def assert_same_training(found: list[dict], expected: dict) -> None:
    for rank in found:
        assert len(rank['gradients']) == len(expected['gradients'])
        for step, means in zip(rank['gradients'], expected['gradients'], strict=True):
            for name, mean in means.items():
                torch.testing.assert_close(step[name], mean, rtol=1e-3, atol=1e-5, msg=name)
        torch.testing.assert_close(rank['weights'], expected['weights'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('case', CASES)
def test_ddp_gives_the_mean_gradient_of_both_halves(two, case):
    """Several steps in a row, without ``find_unused_parameters``, whatever methods the steps drew."""
    assert_same_training(two(f'train:{case}'), worker.train_in_one_process(case, ranks=2))


@pytest.mark.slow
def test_four_processes_give_the_mean_gradient_of_four_quarters(tmp_path):
    launch(tmp_path, 4, ['train:Mixup+SMMix'])
    found = [torch.load(tmp_path / f'train:Mixup+SMMix-{rank}of4.pt', weights_only=False) for rank in range(4)]
    assert_same_training(found, worker.train_in_one_process('Mixup+SMMix', ranks=4))
    assert len({str([entry[:2] for entry in rank['seen']]) for rank in found}) == 1


def test_ranks_draw_the_same_method_and_region_and_differ_in_the_rest(two):
    for case in ('Mixup+SMMix', 'all'):
        first, second = (rank['seen'] for rank in two(f'train:{case}'))
        assert len(first) == worker.STEPS
        assert [entry[:2] for entry in first] == [entry[:2] for entry in second]
        assert len({entry[0] for entry in first}) > 1
        assert all(one[2] != other[2] for one, other in zip(first, second, strict=True))


def test_a_region_classifier_that_is_left_out_has_gradient_zero(two):
    for rank in two('train:Mixup'):
        for step in rank['gradients']:
            for name in ('region_head.weight', 'region_head.bias'):
                assert step[name].abs().max() == 0
    smmix = two('train:SMMix')[0]['gradients']
    assert all(step['region_head.weight'].abs().max() > 0 for step in smmix)


def test_accumulated_gradients_are_the_mean_over_ranks_and_micro_steps(two):
    expected = worker.train_in_one_process(ACCUMULATED, ranks=2, micro_steps=2)
    for rank in two(f'accumulate:{ACCUMULATED}'):
        torch.testing.assert_close(rank['weights'], expected['weights'], rtol=1e-4, atol=1e-5)


def test_ema_follows_its_recursion_on_every_rank(two):
    for rank in two('ema:SMMix'):
        history, momentum = rank['history'], worker.EMA_MOMENTUM
        averaged = history[0]
        for weights in history[1:]:
            averaged = {name: (1 - momentum) * averaged[name] + momentum * weights[name] for name in averaged}
        (found,) = rank['averaged']
        assert not torch.equal(found['head.layers.head.weight'], history[-1]['head.layers.head.weight'])
        torch.testing.assert_close(found, averaged, rtol=1e-5, atol=1e-6)


@needs_fsdp
@pytest.mark.parametrize('case', FSDP_CASES)
@pytest.mark.parametrize(('ddp', 'fsdp', 'tolerance'), zip(DDP, FSDP, (1e-5, 2e-3, 1e-5), strict=True))
def test_fsdp_trains_as_ddp_does(two, case, ddp, fsdp, tolerance):
    """ViT and PVT; weight decay by shape and clipping, by the norm of all gradients too, which shards do not know."""
    whole, sharded = two(f'{ddp}:{case}'), two(f'{fsdp}:{case}')
    for rank in range(2):
        assert sharded[rank]['losses'] == pytest.approx(whole[rank]['losses'], rel=tolerance)
    assert len(set(whole[0]['losses'])) > 1
    # Whole, and on the first rank alone.
    weights = sharded[0]['weights']
    assert weights.keys() == whole[0]['weights'].keys()
    # Keys' biases have no gradient but rounding, which AdamW scales up to its learning rate.
    torch.testing.assert_close(weights, whole[0]['weights'], rtol=1e-3, atol=15 * tolerance)
    assert all(type(value) is torch.Tensor and not vars(value) for value in weights.values())


def test_no_thread_of_gloo_is_left_when_python_ends(two):
    """The cause of aborts at exit: such a thread asks for Python's lock, which is no longer given."""
    assert all('threads of gloo left: 0' in output for output in two.outputs)


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_and_is_shown(tmp_path):
    """While the others wait for its gradients; for half an hour, if nobody ended them."""
    done = torchrun(tmp_path, 2, ['fail:SMMix'], timeout=100)
    assert done.returncode == 1
    assert 'RuntimeError: rank 1 fails in step 2' in done.stderr
    assert 'terminate called' not in done.stderr
    # torchrun tells failures apart by the second, and the other process may lose its connection within it.
    summary = done.stderr.split('FAILED')[-1]
    assert 'Root Cause (first observed failure):' in summary
    assert 'rank 1 fails in step 2' in summary
    assert summary.count('exitcode  : 1') >= 1


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 4])
def test_all_processes_of_many_runs_end_with_status_0(tmp_path, processes):
    """Without :func:`distributed_run` one run in three aborted."""
    for _ in range(15):
        launch(tmp_path, processes, ['train:Mixup'])


def small_demo(folder: Path) -> list[str]:
    """Options that make the demo config a matter of seconds."""
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    data = dict(data_root=folder / 'data') | {'sizes.train': 128, 'sizes.val': 20}
    return [
        '--cfg-options',
        *(f'{loader}.dataset.{key}={value}' for loader in loaders for key, value in data.items()),
        'default_hooks.logger.interval=1',
        'train_cfg.max_epochs=1',
    ]


def launch_tool(script: str, *args: object, **environment: str) -> subprocess.CompletedProcess:
    """A launcher of ``tools/``, with this interpreter as its ``python``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    done = subprocess.run(
        ['bash', ROOT / 'tools' / script, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('trained')
    launch_tool('dist_train.sh', DEMO, 2, '--work-dir', folder / 'run', *small_demo(folder))
    return folder


def score(out: Path) -> float:
    return json.loads(out.read_text())['accuracy/top1']


@pytest.mark.slow
def test_two_processes_train_and_one_tests_what_they_saved(trained):
    rows = scalars(trained / 'run')
    assert [row['step'] for row in rows if 'loss' in row] == [1, 2]
    out = trained / 'metrics.json'
    work_dir = ['--work-dir', trained / 'test', '--out', out]
    run('test.py', DEMO, trained / 'run/epoch_1.pth', *work_dir, *small_demo(trained))
    assert score(out) == pytest.approx(next(row['accuracy/top1'] for row in rows if 'accuracy/top1' in row))


@pytest.mark.slow
@needs_fsdp
@pytest.mark.parametrize('model', ['vit-mini', 'pvt-mini'])
def test_fsdp_by_one_entry_of_base(trained, tmp_path, model):
    """Trains, goes on from its checkpoint, and that one loads everywhere, in one process and in two."""
    config = tmp_path / 'sharded.py'
    demo = ROOT / f'configs/smmix/{model}_smmix_1xb32-8e_digit-scenes.py'
    config.write_text(f"_base_ = ['{demo}', '{ROOT}/configs/_base_/strategies/fsdp.py']\n")
    options = [*small_demo(trained), 'default_hooks.checkpoint.max_keep_ckpts=3']
    work_dir = ['--work-dir', tmp_path / 'run']
    launch_tool('dist_train.sh', config, 2, *work_dir, *options)
    launch_tool('dist_train.sh', config, 2, *work_dir, '--resume', *options, 'train_cfg.max_epochs=2')
    rows = scalars(tmp_path / 'run')
    assert [row['step'] for row in rows if 'loss' in row] == [1, 2, 3, 4]
    validated = [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row]
    testing = [tmp_path / 'run/epoch_2.pth', '--work-dir', tmp_path / 'test', '--out', tmp_path / 'metrics.json']
    run('test.py', demo, *testing, *options)
    assert score(tmp_path / 'metrics.json') == pytest.approx(validated[1])
    (tmp_path / 'metrics.json').unlink()
    launch_tool('dist_test.sh', config, testing[0], 2, *testing[1:], *options)
    assert score(tmp_path / 'metrics.json') == pytest.approx(validated[1])


SRUN = """#!/usr/bin/env bash
# Stands for Slurm on one machine: starts the tasks with its variables and ends with the worst of their statuses.
echo "$@" > "$SRUN_LOG"
while [[ $1 != python ]]; do
  [[ $1 == --ntasks=* ]] && tasks=${1#*=}
  shift
done
for ((task = 0; task < tasks; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=$tasks SLURM_NODELIST=here "$@" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
"""
SCONTROL = '#!/usr/bin/env bash\n[[ "$*" == "show hostname here" ]] && echo 127.0.0.1\n'


@pytest.mark.slow
def test_slurm_launcher(tmp_path):
    """Against stand-ins for srun and scontrol; two tasks on the CPU."""
    for name, text in (('srun', SRUN), ('scontrol', SCONTROL)):
        (tmp_path / 'bin').mkdir(exist_ok=True)
        (tmp_path / 'bin' / name).write_text(text)
        (tmp_path / 'bin' / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path / 'bin'), str(Path(sys.executable).parent), os.environ['PATH']])
    environment = dict(PATH=path, GPUS='2', MASTER_PORT=str(free_port()), SRUN_LOG=str(tmp_path / 'srun.txt'))
    launch_tool(
        'slurm_train.sh', 'partition', 'job', DEMO, '--work-dir', tmp_path / 'run', *small_demo(tmp_path), **environment
    )
    assert [row['step'] for row in scalars(tmp_path / 'run') if 'loss' in row] == [1, 2]
    assert {'--ntasks=2', '--signal=TERM@120'} <= set((tmp_path / 'srun.txt').read_text().split())
