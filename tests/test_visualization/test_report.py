"""The page about training runs: its values against the logs, its groups, and what it says of bad input."""

import json
import re
import runpy
import statistics
from pathlib import Path

import numpy as np
import pytest
from browser import check_page
from logged_runs import read_curves, read_tables, score, step, write_run
from PIL import Image
from processes import ROOT, scalars
from tiny_runs import build, registered  # noqa: F401

from smmix_mm.visualization.report import save_report


@pytest.fixture
def report(tmp_path):
    """Writes the page and returns it as text, with what could not be read."""

    def write(*folders, **options):
        problems = save_report(folders or [tmp_path / 'runs'], tmp_path / 'out/report.html', **options)
        return (tmp_path / 'out/report.html').read_text(), problems

    return write


@pytest.fixture
def runs(tmp_path):
    return tmp_path / 'runs'


@pytest.mark.usefixtures('registered')
def test_real_runs_are_compared(runs, report):
    # Runs that start in the same second are in the order of their names.
    for name, seed, lr in (('low/seed-5', 5, 0.1), ('low/seed-6', 6, 0.1), ('raised', 5, 0.2)):
        build(runs / name, seed=seed, **{'optim_wrapper.optimizer.lr': lr}).train()
    page, problems = report()
    assert problems == []
    logs = {name: scalars(runs / name) for name in ('low/seed-5', 'low/seed-6', 'raised')}
    finals = {name: [row['mean'] for row in rows if 'mean' in row][-1] for name, rows in logs.items()}
    low = [finals['low/seed-5'], finals['low/seed-6']]
    results, single, differences, *_ = read_tables(page)
    by_group = {row[0]: dict(zip(results[0], row, strict=True)) for row in results[1:]}
    assert [row[0] for row in results[1:]] == ['low', 'raised']
    digits = 3 if max(abs(row['mean']) for rows in logs.values() for row in rows if 'mean' in row) <= 1 else 2
    assert by_group['low']['mean'] == f'{statistics.fmean(low):.{digits}f} ± {statistics.stdev(low):.{digits}f}'
    assert by_group['raised']['mean'] == f'{finals["raised"]:.{digits}f}'
    assert results[2][3] == f'{finals["raised"] - statistics.fmean(low):+.{digits}f}'
    times = [row['time'] for name in ('low/seed-5', 'low/seed-6') for row in logs[name] if 'loss' in row]
    assert by_group['low']['ms per step'] == f'{1000 * statistics.median(times):.0f}'
    assert [row[:2] for row in single[1:]] == [['low/seed-5', '5'], ['low/seed-6', '6'], ['raised', '5']]
    assert {row[-1] for row in single[1:]} == {'3 of 3 epochs'}
    assert differences == [['setting', 'low', 'raised'], ['optim_wrapper.optimizer.lr', '0.1', '0.2']]

    curves = read_curves(page)
    losses = {name: [row['loss'] for row in rows if 'loss' in row] for name, rows in logs.items()}
    steps, means = curves['loss', 'low']
    assert steps == list(range(1, 13))
    assert means == pytest.approx(
        [(a + b) / 2 for a, b in zip(losses['low/seed-5'], losses['low/seed-6'], strict=True)]
    )
    assert curves['loss', 'raised'][1] == losses['raised']
    assert curves['mean', 'raised'] == ([1, 2, 3], [row['mean'] for row in logs['raised'] if 'mean' in row])


# A browser without a GPU takes a minute to draw the curves in all widths and colours.
@pytest.mark.slow
@pytest.mark.usefixtures('registered')
def test_real_runs_are_shown_in_a_browser(runs, report, tmp_path):
    for name, lr in (('low', 0.1), ('high', 0.2)):
        build(runs / name, seed=5, **{'optim_wrapper.optimizer.lr': lr}).train()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 2000, 3), dtype=np.uint8)).save(runs / 'wide.png')
    report()
    check_page(tmp_path / 'out/report.html')


@pytest.mark.slow
def test_nothing_from_logs_and_configs_becomes_code(runs, report, tmp_path):
    evil = '<img src=x onerror=alert(1)><!--%{y}'
    for name, depth in ((evil, 1), ('b', 2)):
        write_run(
            runs / name,
            *(step(number, **{'</script><script>alert(2)</script>loss': 1.0}) for number in (1, 2, 3)),
            score(1, **{'<b>top</b>': 1.0}),
            config=dict(model=dict(type='</script><script>alert(3)</script>', depth=depth)),
        )
    page, _ = report(title='<script>alert(4)</script>', command='</pre><script>alert(5)</script>')
    assert 'alert(3)' in page
    assert read_tables(page)[0][1][0] == evil
    check_page(tmp_path / 'out/report.html', [(390, 'light')])


@pytest.mark.parametrize(
    ('before', 'after', 'losses', 'tops'),
    [
        # Killed in epoch 2, of which step 3 was logged, and resumed from the checkpoint of epoch 1.
        (
            [step(1), step(2), score(1, top=10), step(3, 2, loss=9.0)],
            [step(3, 2, loss=3.0), step(4, 2), score(2, top=20)],
            [1, 1, 3, 1],
            {1: 10, 2: 20},
        ),
        # Another training from scratch in the same folder, which has not been validated yet.
        ([step(1), step(2), score(1, top=10)], [step(1, loss=5.0)], [5], {}),
        # Nothing was logged before the second kill.
        ([step(1), score(1, top=10)], [], [1], {1: 10}),
        # By iteration.
        (
            [step(2, None), score(2, top=10), step(4, None, loss=9.0), score(4, top=9)],
            [step(4, None, loss=3.0), score(4, top=20)],
            [1, 3],
            {2: 10, 4: 20},
        ),
    ],
)
def test_starts_of_a_run_are_joined_by_step(runs, report, before, after, losses, tops):
    write_run(runs / 'a', *before)
    write_run(runs / 'a', *after, time='20260101_000100')
    curves = read_curves(report()[0])
    assert curves['loss', 'a'][1] == losses
    assert dict(zip(*curves.get(('top', 'a'), ([], [])), strict=True)) == tops


@pytest.mark.parametrize(
    ('rows', 'title', 'where'),
    [
        ([step(50), score(1, top=1), step(100, 2), score(2, top=2)], 'Scores by epoch', [1, 2]),
        # An interval of logging beyond the length of an epoch.
        ([score(1, top=1), score(2, top=2)], 'Scores by epoch', [1, 2]),
        ([step(40, None), score(50, top=1), step(80, None), score(100, top=2)], 'Scores by iteration', [50, 100]),
        # log_metric_by_epoch in a loop by iteration.
        ([step(40), score(0, top=1), step(80), score(0, top=2)], 'Scores by iteration', [40, 80]),
        ([step(40, 1), score(50, top=1), step(80, 2), score(100, top=2)], 'Scores by iteration', [50, 100]),
    ],
)
def test_scores_stand_at_their_epoch_or_iteration(runs, report, rows, title, where):
    write_run(runs / 'a', *rows)
    page, _ = report()
    assert f'<h3>{title}</h3>' in page
    assert read_curves(page)['top', 'a'] == (where, [1, 2])


def test_differences_are_paired_where_the_seeds_are_the_same(runs, report):
    tops = dict(one=(40.0, 50.0, 60.0), two=(41.0, 53.0, 65.0), three=(30.0, 30.0))
    for method, values in tops.items():
        for seed, top in enumerate(values):
            write_run(
                runs / f'{method}_seed-{seed}',
                score(1, accuracy__top1=top),
                config=dict(model=dict(type=method), randomness=dict(seed=seed)),
            )
    page, _ = report(*(runs / f'{method}_seed-{seed}' for method in tops for seed in range(len(tops[method]))))
    rows = {row[0]: row[1:4] for row in read_tables(page)[0]}
    assert rows['one'] == ['3', '50.00 ± 10.00', '-']
    # Differences 1, 3, 5.
    assert rows['two'] == ['3', '53.00 ± 12.00', '+3.00 ± 2.00']
    assert rows['three'] == ['2', '30.00 ± 0.00', '-20.00']


def test_transfers_from_several_seeds_of_one_pretraining_are_a_group(runs, report):
    for method in ('cutmix', 'smmix'):
        for seed in (0, 1):
            folder = write_run(
                runs / method / f'seed-{seed}',
                score(1, top=1),
                config=dict(model=dict(type=method), randomness=dict(seed=seed)),
            )
            init_cfg = dict(checkpoint=f'{folder}/epoch_{seed}.pth')
            write_run(
                runs / f'fpn_{method}' / f'seed-{seed}',
                score(1, mIoU=50.0),
                config=dict(default_scope='mmseg', model=dict(init_cfg=init_cfg), randomness=dict(seed=seed)),
            )
    page, problems = report()
    assert problems == []
    tables = [[row[:2] for row in table[1:]] for table in read_tables(page)]
    assert [['cutmix', '2'], ['smmix', '2']] in tables
    assert [['fpn_cutmix', '2'], ['fpn_smmix', '2']] in tables


def test_tasks_have_sections_and_parts_of_a_score_only_the_table_of_runs(runs, report):
    write_run(runs / 'a', score(1, accuracy__top1=50.0))
    write_run(runs / 'b', score(1, coco__bbox_mAP=0.4, coco__bbox_mAP_50=0.6), config=dict(default_scope='mmdet'))
    # Without a config the names of the scores tell the task.
    write_run(runs / 'c', score(1, mIoU=30.0), config='broken(')
    page, _ = report()
    assert re.findall('<h2>(.*?)</h2>', page) == ['Classification', 'Detection', 'Segmentation', 'Reproduce']
    heads = [table[0] for table in read_tables(page)]
    assert ['group', 'runs', 'coco/bbox_mAP', 'difference', 'ms per step', 'memory (MB)'] in heads
    assert ['run', 'seed', 'coco/bbox_mAP', 'coco/bbox_mAP_50', 'length'] in heads


def test_versions_and_commands_are_shown(runs, report):
    write_run(runs / 'a', step(1), score(1, top=1), devices=8, config=dict(resume=True, load_from='epoch_1.pth'))
    write_run(runs / 'b', step(1), score(1, top=1))
    (runs / 'comparison.json').write_text(json.dumps(dict(command='compare.py --methods a b')))
    page, _ = report()
    assert ['PyTorch', '2.12.1'] in read_tables(page)[-1]
    assert 'numpy_random_seed' not in [row[0] for row in read_tables(page)[-1]]
    config = runs / 'a/20260101_000000/vis_data/config.py'
    options = f'{config} 8 --work-dir {runs / "a"}-again --cfg-options resume=False load_from=None'
    assert f'bash tools/dist_train.sh {options}' in page
    assert f'python tools/train.py {runs / "b"}' in page
    assert '<pre>python compare.py --methods a b</pre>' in page


def write_cut_off(folder: Path) -> None:
    write_run(folder, step(1), score(1, top=1))
    with (folder / '20260101_000000/vis_data/scalars.json').open('a') as file:
        file.write('{"loss": 0.5, "it')


def write_damaged(folder: Path) -> None:
    write_run(folder, step(1), score(1, top=1))
    path = folder / '20260101_000000/vis_data/scalars.json'
    path.write_text('{"loss": \n[1]\n{"loss": 1}\n' + path.read_text())


def write_without_config(folder: Path) -> None:
    write_run(folder, step(1), score(1, top=1))
    (folder / '20260101_000000/vis_data/config.py').unlink()


BAD = {
    'missing': (lambda folder: None, 'is no folder'),
    'empty': (lambda folder: folder.mkdir(), 'has no logs of mmengine below it'),
    'no logs': (lambda folder: write_run(folder), 'nothing has been logged yet'),
    'running': (
        lambda folder: write_run(
            folder, step(1), score(1, top=1), step(2, 2), config=dict(train_cfg=dict(max_epochs=3))
        ),
        'not finished: epoch 1 of 3',
    ),
    'cut off': (write_cut_off, 'the last line is cut off'),
    'damaged': (write_damaged, 'line 1 is not a JSON object with a step'),
    'nan': (
        lambda folder: write_run(
            folder, step(1), step(2, loss=float('nan')), step(3, loss=float('inf')), score(1, top=1)
        ),
        'loss is not finite in 2 lines of the log, first at step 2',
    ),
    'config': (
        lambda folder: write_run(folder, step(1), score(1, top=1), config='model = dict('),
        'cannot be read as a config',
    ),
    'no config': (write_without_config, 'no config was found'),
}


@pytest.mark.parametrize('name', BAD)
def test_what_is_wrong_is_said_and_the_rest_done(runs, report, name):
    make, message = BAD[name]
    write_run(
        runs / 'good',
        *(step(number, loss=float(number)) for number in (1, 2, 3)),
        score(1, top=70.0),
        config=dict(model=dict(type='A')),
    )
    make(runs / 'bad')
    page, problems = report(runs / 'good', runs / 'bad')
    assert any(message in problem and 'bad' in problem for problem in problems), problems
    assert page.count(message) >= 1
    curves = read_curves(page)
    assert curves['loss', 'good'] == ([1, 2, 3], [1, 2, 3])
    assert any(row[:3] == ['good', '1', '70.00'] for table in read_tables(page) for row in table)
    if name in ('cut off', 'damaged', 'config', 'no config'):
        assert curves['loss', 'bad'] == ([1], [1])
    if name == 'nan':
        assert curves['loss', 'bad'] == ([1, 2, 3], [1, None, None])


def test_without_any_run_no_page_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', ['report.py', str(tmp_path / 'none'), '--out', str(tmp_path / 'report.html')])
    with pytest.raises(SystemExit, match=r'nothing to report: .*none is no folder'):
        runpy.run_path(str(ROOT / 'tools/analysis_tools/report.py'), run_name='__main__')
    assert not (tmp_path / 'report.html').exists()


def test_the_tool_prints_the_page_and_what_is_wrong(runs, tmp_path, monkeypatch, capsys):
    write_run(runs / 'a', step(1), score(1, top=1))
    out = tmp_path / 'new/page.html'
    monkeypatch.setattr(
        'sys.argv', ['report.py', *map(str, (runs, runs / 'none')), '--out', str(out), '--title', 'Ours']
    )
    runpy.run_path(str(ROOT / 'tools/analysis_tools/report.py'), run_name='__main__')
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out)]
    assert 'none is no folder' in printed.err
    assert '<h1>Ours</h1>' in out.read_text()


def test_means_are_over_finished_runs(runs, report):
    for seed, epochs in ((0, 2), (1, 2), (2, 1)):
        rows = [
            row for epoch in range(1, epochs + 1) for row in (step(epoch, epoch), score(epoch, top=10.0 * epoch + seed))
        ]
        config = dict(train_cfg=dict(max_epochs=2), randomness=dict(seed=seed))
        write_run(runs / f'seed-{seed}', *rows, config=config)
    page, _ = report()
    results, single = read_tables(page)[:2]
    assert results[1][:3] == ['runs', '2 of 3 finished', '20.50 ± 0.71']
    assert [row[2:] for row in single[1:]] == [
        ['20.00', '2 of 2 epochs'],
        ['21.00', '2 of 2 epochs'],
        ['12.00', '1 of 2 epochs'],
    ]
    assert read_curves(page)['top', 'runs'] == ([1, 2], [10.5, 20.5])


def test_a_test_is_no_run(runs, report):
    write_run(runs / 'a', step(1), score(1, top=1))
    write_run(runs / 'a/test', config=dict(train_cfg=None))
    page, problems = report()
    assert problems == []
    assert '1 run in 1 group' in page


def test_pictures_are_thinned_out_and_made_smaller(runs, report):
    write_run(runs / 'a', step(1), score(1, top=1))
    folder = runs / 'a/20260101_000000/vis_data/vis_image'
    folder.mkdir()
    for number in range(15):
        Image.new('RGBA', (3000, 300), (number, 0, 0, 255)).save(folder / f'batch_{number}.png')
    (runs / 'a/broken.png').write_bytes(b'no picture')
    page, problems = report()
    shown = [f'batch_{number}.png' for number in (0, 2, 4, 6, 8, 10, 12, 14)]
    assert [name for name in (f'batch_{number}.png' for number in range(15)) if f'alt="{name}"' in page] == shown
    assert page.index('alt="batch_2.png"') < page.index('alt="batch_10.png"')
    assert page.count('width="1400" height="140"') == 8
    assert '(8 of 15 pictures)' in page
    assert len(problems) == 1 and 'broken.png cannot be read as a picture' in problems[0]
