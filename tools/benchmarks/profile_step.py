"""Profiles training steps with SMMix and with CutMix: the time of parts of the code and of operators.

Parts are timed without the profiler, on a GPU by its own clock; then two more steps are profiled. The traces, one per
method, can be opened in https://ui.perfetto.dev and are not part of the repository. Weights and pictures are random.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.registry import init_default_scope
from steps import MODELS_TIMED, build, build_optim_wrapper, random_batch
from timing import add_precision_options, amp_dtype, pick_clock, write_report
from torch.profiler import ProfilerActivity, profile, record_function

from smmix_mm import functional
from smmix_mm.compat import own_device_time
from smmix_mm.engine.hooks.compile_hook import compile_backbone

METHODS = {
    'SMMix': dict(type='smmix_mm.SMMix'),
    'CutMix': dict(type='mmpretrain.CutMix', alpha=1.0),
}
PROFILED_STEPS = 2


class Stopwatch:
    """Times parts of a step, which may be nested: the time of a part excludes the parts inside it.

    Args:
        device (torch.device): On CUDA the GPU's own clock is read, so that the host does not wait during a step.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == 'cuda'
        self._clock = pick_clock(device)
        # Events and their times: a part began (its name) or ended (None).
        self._marks: list[tuple[str | None, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times the code in the block, and names it in a trace."""
        self._marks.append((name, self._now()))
        with record_function(name):
            yield
        self._marks.append((None, self._now()))

    def wrap(self, name: str, function: Callable) -> Callable:
        """Returns a function whose calls are timed as a part."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def read(self) -> dict[str, float]:
        """Returns the seconds of each part since the last reading, adding up parts of the same name."""
        if self.on_cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        open_parts: list[str] = []
        for (name, mark), (_, following) in zip(self._marks, self._marks[1:], strict=False):
            if name is None:
                open_parts.pop()
            else:
                open_parts.append(name)
            if open_parts:
                seconds[open_parts[-1]] = seconds.get(open_parts[-1], 0.0) + self._between(mark, following)
        self._marks.clear()
        return seconds

    def _now(self) -> Any:
        if not self.on_cuda:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, first: Any, second: Any) -> float:
        return first.elapsed_time(second) / 1000 if self.on_cuda else second - first


@contextmanager
def watched(model: torch.nn.Module, optim_wrapper: Any, stopwatch: Stopwatch) -> Iterator[None]:
    """Times the parts of the model's steps from outside, so that the library needs no timing code."""
    method = model.mixing.methods[0]
    parts = [
        (model.data_preprocessor, 'forward', 'data preprocessor'),
        (model, 'motivate', 'motivation pass'),
        (functional, 'image_attention', 'attention score'),
        (functional, 'max_min_corners', 'window search'),
        (functional, 'paste_windows', 'paste'),
        (functional, 'window_mask', 'window mask'),
        (functional, 'mix_pairs', 'mixed labels'),
        (method, 'forward', 'rest of the mixing'),
        (model.adapter, 'grid', 'token grid'),
        (model, 'loss', 'rest of the loss'),
        (method, 'losses', 'losses'),
        (optim_wrapper, 'backward', 'backward'),
        (optim_wrapper, 'step', 'optimiser'),
        (optim_wrapper, 'zero_grad', 'zero_grad'),
    ]
    with ExitStack() as stack:
        for owner, name, label in parts:
            stack.enter_context(mock.patch.object(owner, name, stopwatch.wrap(label, getattr(owner, name))))
        read = model.adapter.read

        def read_training(*args: Any, **kwargs: Any) -> Any:
            # The motivation pass also reads, but is a part already.
            if not torch.is_grad_enabled():
                return read(*args, **kwargs)
            with stopwatch.part('forward'):
                return read(*args, **kwargs)

        stack.enter_context(mock.patch.object(model.adapter, 'read', read_training))
        yield


def profile_method(name: str, method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns median seconds by part, shares by operator, and the path of the trace."""
    device = torch.device(args.device)
    model = build(name, [METHODS[method]], device, channels_last=args.channels_last)
    if args.compile:
        compile_backbone(model, backend=args.compile)
    batch, optim_wrapper = random_batch(args.batch_size, device), build_optim_wrapper(model, args.amp)
    stopwatch = Stopwatch(device)

    def step() -> None:
        with stopwatch.part('rest of the step'):
            model.train_step(batch, optim_wrapper)

    model.train_step(batch, optim_wrapper)
    with watched(model, optim_wrapper, stopwatch):
        readings = []
        for _ in range(args.steps):
            step()
            readings.append(stopwatch.read())
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if stopwatch.on_cuda else [])]
        with profile(activities=activities) as profiler:
            for _ in range(PROFILED_STEPS):
                step()
    trace = args.out.parent / 'traces' / f'{name}_{method}.json'
    trace.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(trace))
    parts = {part: statistics.median(reading.get(part, 0.0) for reading in readings) for part in readings[0]}
    return dict(parts=parts, operators=top_operators(profiler, set(parts), stopwatch.on_cuda), trace=str(trace))


def top_operators(profiler: profile, parts: set[str], on_cuda: bool, count: int = 12) -> dict[str, float]:
    """Returns the operators with the most own time, as shares of that of all operators."""
    seconds = {}
    for event in profiler.key_averages():
        if event.key not in parts:
            seconds[event.key] = own_device_time(event) if on_cuda else event.self_cpu_time_total
    total = sum(seconds.values())
    largest = sorted(seconds.items(), key=lambda entry: -entry[1])[:count]
    return {name: spent / total for name, spent in largest}


def print_tables(name: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints Markdown tables with one column per method: milliseconds and share by part, and share by operator."""
    totals = {method: sum(result['parts'].values()) for method, result in found.items()}

    def part(method: str, seconds: float) -> str:
        return f'{1000 * seconds:.2f} ms, {100 * seconds / totals[method]:.2f} %'

    def operator(_method: str, share: float) -> str:
        return f'{100 * share:.1f} %'

    for what, show in (('parts', part), ('operators', operator)):
        print(f'\n| {name}, {what} | {" | ".join(found)} |\n| :-- |{" --: |" * len(found)}')
        for row in dict.fromkeys(row for result in found.values() for row in result[what]):
            cells = [show(method, result[what][row]) if row in result[what] else '' for method, result in found.items()]
            print(f'| {row} | {" | ".join(cells)} |')
        if what == 'parts':
            print(f'| all | {" | ".join(f"{1000 * total:.1f} ms" for total in totals.values())} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', choices=MODELS_TIMED, default=['deit-small', 'pvt-small'])
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--steps', type=int, default=9, help='number of steps timed without the profiler')
    add_precision_options(parser)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/profile_step.json'))
    args = parser.parse_args()
    args.amp = amp_dtype(args.amp, torch.device(args.device))
    init_default_scope('mmpretrain')
    print(f'batch {args.batch_size}, {args.device}, {args.steps} steps')
    results = {}
    for name in args.models:
        results[name] = {method: profile_method(name, method, args) for method in METHODS}
        print_tables(name, results[name])
        write_report(args.out, args, results)


if __name__ == '__main__':
    main()
