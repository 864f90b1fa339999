"""The comparison of methods as a real process, and the figures in its table."""

import importlib.util
import json
import shutil

import pytest
from logged_runs import read_tables
from mmengine.config import Config
from processes import ROOT, run, scalars

from smmix_mm.engine import read_method

MODEL = 'configs/cutmix/pvt-mini_cutmix_1xb32-8e_digit-scenes.py'
METHODS = (
    'mixup',
    'cutmix',
    'resizemix',
    'attentivemix',
    'saliencymix',
    'fmix',
    'puzzlemix',
    'automix',
    'transmix',
    'tokenmix',
    'smmix',
)
# The published grids are those of larger pictures: TokenMix's here has 8 x 8 tokens, and as large a part of it in extra
# ones as 14 of 196.
SMALL_GRIDS = ('--set', 'tokenmix.patch_size=8', 'tokenmix.extra_tokens=5', 'attentivemix.cell_size=8')


@pytest.fixture(scope='module')
def compare():
    spec = importlib.util.spec_from_file_location('compare', ROOT / 'tools/benchmarks/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call(compare, monkeypatch):
    """Runs the program in this process, which starts one for every training."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')

    def run_main(*options):
        monkeypatch.setattr('sys.argv', ['compare.py', *map(str, options)])
        compare.main()

    return run_main


@pytest.fixture
def digit_scenes(tmp_path):
    """Options for as few pictures as one short epoch needs, in a folder of their own."""
    data = {'data_root': tmp_path / 'data', 'sizes.train': 128, 'sizes.val': 100}
    return [
        '--cfg-options',
        *(
            f'{split}_dataloader.dataset.{key}={value}'
            for split in ('train', 'val', 'test')
            for key, value in data.items()
        ),
    ]


def test_a_run_is_done_once(tmp_path, call, digit_scenes, capsys):
    work_dir = tmp_path / 'compare'
    options = ['--methods', 'cutmix', '--model', MODEL, '--epochs', 2, '--work-dir', work_dir, *digit_scenes]
    call(*options)
    first = capsys.readouterr().out
    assert 'cutmix, seed 0: training' in first
    report = json.loads((work_dir / 'comparison.json').read_text())
    result = report['results']['cutmix']['0']
    rows = scalars(work_dir / 'cutmix/seed-0')
    accuracies = [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row]
    assert len(accuracies) == 2
    assert (result['accuracy'], result['best']) == (accuracies[-1], max(accuracies))
    assert result['step_ms'] == pytest.approx(1000 * sum(row['time'] for row in rows if 'loss' in row) / 1, rel=1)
    # A Python process with torch and a batch of pictures.
    assert 200 < result['memory_mb'] < 20_000
    assert f'| cutmix | 1 | {result["accuracy"]:.2f} |' in first
    assert f'report: {work_dir}/report.html' in first
    results = read_tables((work_dir / 'report.html').read_text())[0]
    row = dict(zip(*results, strict=True))
    assert (row['accuracy/top1'], row['memory (MB)']) == (f'{accuracies[-1]:.2f}', f'{result["memory_mb"]:.0f}')

    call(*options)
    again = capsys.readouterr().out
    assert 'training' not in again
    assert first.partition('| method')[2] == again.partition('| method')[2]

    with pytest.raises(SystemExit, match='holds a run with other settings'):
        call(*options, 'model.backbone.drop_path_rate=0.2')
    assert (work_dir / 'cutmix/seed-0/result.json').exists()


@pytest.mark.slow
def test_a_run_goes_on_after_an_interruption(tmp_path, call, digit_scenes):
    folder = tmp_path / 'cutmix/seed-0'
    options = ['--methods', 'cutmix', '--model', MODEL, '--work-dir', tmp_path, *digit_scenes]
    call(*options, 'train_cfg.max_epochs=2')
    whole = json.loads((folder / 'result.json').read_text())
    # As an interruption at the end leaves it.
    (folder / 'result.json').unlink()
    call(*options, 'train_cfg.max_epochs=2')
    assert json.loads((folder / 'result.json').read_text())['accuracy'] == whole['accuracy']
    assert [row['epoch'] for row in scalars(folder) if 'loss' in row] == [1, 2]


@pytest.mark.slow
def test_a_failing_run_is_named_with_its_last_lines(tmp_path, call, digit_scenes):
    options = ['--methods', 'cutmix', '--model', MODEL, '--work-dir', tmp_path / 'compare', *digit_scenes]
    with pytest.raises(SystemExit, match=r'num_classes(.|\n)*the training of cutmix with seed 0 failed'):
        call(*options, 'model.head.num_classes=3')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--methods', 'mixmix'], "no method 'mixmix'; known are attentivemix, automix, cutmix"),
        (['--methods', 'cutmix', '--seeds', 0], '--seeds has to be at least 1, but got 0'),
        (['--methods', 'cutmix', '--set', 'patch_size=4'], '--set takes METHOD.SETTING=VALUE'),
        # Before the first of them is trained.
        (
            ['--methods', 'cutmix', 'tokenmix', '--teacher', 'none.pth'],
            '--teacher is neither a method nor a checkpoint',
        ),
        (['--methods', 'cutmix', 'tokenmix', '--teacher', 'tokenmix'], '--teacher tokenmix needs a teacher itself'),
        (['--methods', 'cutmix', 'fmix', '--set', 'fmix.nope=1'], 'fmix cannot be built: '),
    ],
)
def test_bad_arguments_are_refused(call, tmp_path, capsys, options, words):
    with pytest.raises((SystemExit, ValueError)) as refused:
        call('--model', MODEL, '--work-dir', tmp_path / 'compare', *options)
    assert words in f'{refused.value}\n{capsys.readouterr().err}'
    assert not (tmp_path / 'compare').exists()


def test_the_table_holds_mean_and_spread(compare):
    def result(accuracy, best, step_ms):
        return compare.Result(accuracy=accuracy, best=best, step_ms=step_ms, memory_mb=100.0, seconds=1.0)

    results = {
        'smmix': {0: result(70, 71, 10), 1: result(72, 73, 30), 2: result(74, 75, 20)},
        'fmix': {0: result(1, 2, 3)},
        'mixup': {0: result(70.5, 71, 10), 1: result(71, 73, 30)},
    }
    lines = compare.table(results).splitlines()
    # Mean 72, deviations -2, 0, 2: the sample's standard deviation is 2.
    assert lines[2] == '| smmix | 3 | 72.00 ± 2.00 |  | 73.00 ± 2.00 | 20 | 100 |'
    assert lines[3] == '| fmix | 1 | 1.00 | -69.00 | 2.00 | 3 | 100 |'
    # Beside the first method's run with the same seed; the methods after the first may have fewer.
    assert '| +0.50, -1.00 |' in lines[4]


def test_steps_of_a_resumed_training_are_taken_together(compare, tmp_path):
    for name, rows in {
        '1': [dict(loss=1, time=0.1, memory=300), {'accuracy/top1': 40.0}],
        '2': [dict(loss=1, time=0.3, memory=200), dict(loss=1, time=0.2, memory=100), {'accuracy/top1': 30.0}],
    }.items():
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / 'vis_data/scalars.json').write_text('\n'.join(map(json.dumps, rows)))
    found = compare.summarise(tmp_path, process_mb=5000.0, seconds=7.0)
    assert found == compare.Result(accuracy=30.0, best=40.0, step_ms=200.0, memory_mb=300, seconds=7.0)


def test_settings_reach_settings_of_settings():
    cfg = read_method('smmix', {'smmix.loss.con_weight': 0.0, 'smmix.placement': 'cutmix', 'tokenmix.patch_size': 4})
    whole = read_method('smmix', {})
    changed = whole.mixing.augments[1]
    changed.loss.con_weight, changed.placement = 0.0, 'cutmix'
    assert cfg.to_dict() == whole.to_dict()


@pytest.mark.parametrize(('epochs', 'expected'), [(16, [(0, 2), (2, 16)]), (4, [(0, 4)]), (1, [(0, 1)])])
def test_the_schedule_is_stretched_with_the_length(compare, epochs, expected):
    cfg = Config.fromfile(ROOT / MODEL)
    compare.shorten(cfg, epochs)
    assert cfg.train_cfg.max_epochs == epochs
    assert [(scheduler.begin, scheduler.end) for scheduler in cfg.param_scheduler] == expected


@pytest.mark.slow
def test_all_methods_with_a_small_budget(tmp_path, digit_scenes):
    """Every method of the comparison trains, and the table has them all."""
    work_dir = tmp_path / 'compare'
    options = ['--model', MODEL, '--epochs', 1, '--work-dir', work_dir, *SMALL_GRIDS, *digit_scenes]
    done = run('benchmarks/compare.py', '--methods', *METHODS, *options, timeout=1800)
    rows = (work_dir / 'comparison.md').read_text().splitlines()[2 : 2 + len(METHODS)]
    assert [row.split(' | ')[0].strip('| ') for row in rows] == list(METHODS)
    assert all(row in done.stdout for row in rows)
    results = json.loads((work_dir / 'comparison.json').read_text())['results']
    for method in METHODS:
        steps = [row for row in scalars(work_dir / method / 'seed-0') if 'loss' in row]
        assert steps and all(row['loss'] == row['loss'] and row['loss'] > 0 for row in steps), method
        assert 0 <= results[method]['0']['accuracy'] <= 100
    # The teacher is the run with CutMix, which was not trained twice.
    assert len(list((work_dir / 'cutmix').glob('*.py'))) == 1
    shutil.rmtree(work_dir)
