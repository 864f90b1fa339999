"""Measures the rate at which the input pipeline of an ImageNet config delivers images, and where its time goes.

The dataset is made of two photographs from scikit-learn, resized to the usual size of ImageNet's images and laid out
like ImageNet in a temporary folder. Rates are per second of processor time of the main process and the workers, which
other programs hardly affect; rates per second of wall-clock time are printed beside them.
"""

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image
from sklearn.datasets import load_sample_images
from timing import write_report

from smmix_mm.configs import CONFIGS
from smmix_mm.engine.dataloaders import complete_dataloaders
from smmix_mm.resume.samples import ResumableLoader, SampleKey
from smmix_mm.streams import seed_globals, seeded_globals

RECIPES = ('configs/smmix/deit-small_smmix_8xb128-300e_in1k.py', 'configs/smmix/swin-tiny_smmix_8xb128-300e_in1k.py')
# The usual size of ImageNet's images; the quality gives about their mean size in bytes.
IMAGE_SIZE, JPEG_QUALITY = (500, 375), 97
CLASSES = tuple(f'n{number:08d}' for number in range(10))
BATCH_SIZE = 32
DEVICES = 8


def make_images(root: Path, count: int, size: tuple[int, int] = IMAGE_SIZE) -> list[Path]:
    """Writes JPEGs in ImageNet's layout: crops of two photographs that differ in position, size and flip."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for name in CLASSES:
        (root / 'train' / name).mkdir(parents=True)
    paths = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        scale = rng.uniform(0.8, 1.0)
        width, height = (round(side * scale) for side in photograph.size)
        left, top = (int(rng.integers(part + 1)) for part in (photograph.width - width, photograph.height - height))
        image = photograph.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        paths.append(root / 'train' / CLASSES[number % len(CLASSES)] / f'{number}.JPEG')
        image.save(paths[-1], quality=JPEG_QUALITY)
    return paths


def build_loader(config: str, root: Path, num_workers: int) -> ResumableLoader:
    """Builds the training loader of a config as tools/train.py and the train loop do."""
    cfg = Config.fromfile(CONFIGS.parent / config)
    cfg.train_dataloader.dataset.update(data_root=str(root), metainfo=dict(classes=CLASSES))
    cfg.train_dataloader.update(batch_size=BATCH_SIZE, num_workers=num_workers, pin_memory=False)
    complete_dataloaders(cfg)
    return ResumableLoader(Runner.build_dataloader(cfg.train_dataloader, seed=0), seed=0)


def cpu_seconds() -> float:
    """Returns the processor time of this process and of its ended children."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure_loader(config: str, root: Path, num_workers: int, epochs: int) -> dict[str, float]:
    """Returns images per second of processor and wall-clock time; only the former includes the start of the workers."""
    loader = build_loader(config, root, num_workers)
    before = cpu_seconds()
    images, seconds = 0, 0.0
    for epoch in range(epochs):
        batches = iter(loader)
        # The first batch waits for the workers to start.
        images += len(next(batches)['inputs']) if epoch == 0 else 0
        timed, started = 0, time.perf_counter()
        for batch in batches:
            timed += len(batch['inputs'])
        images += timed
        seconds += time.perf_counter() - started
    rate_by_clock = images / seconds
    # The workers end with the loader.
    del batches, loader
    return {'per core': images / (cpu_seconds() - before), 'by clock': rate_by_clock}


def measure_transforms(config: str, root: Path, count: int) -> dict[str, float]:
    """Returns milliseconds of processor time per image, by transform and for seeding generators as in a worker."""
    dataset = build_loader(config, root, 0).dataset
    times: dict[str, list[float]] = {}
    for index in range(count):
        stream = SampleKey(index % len(dataset), 0, 0).stream()
        with seeded_globals(stream):
            results = dataset.get_data_info(index % len(dataset))
            for transform in dataset.pipeline.transforms:
                started = time.thread_time()
                results = transform(results)
                times.setdefault(type(transform).__name__, []).append(time.thread_time() - started)
        times.setdefault('seeding, in a worker', []).append(seconds_of_seeding(index))
    return {name: 1000 * statistics.fmean(values) for name, values in times.items()}


def seconds_of_seeding(index: int) -> float:
    # A worker does not restore its generators' states. Without workers they are restored; resume_cost.py times that.
    started = time.thread_time()
    seed_globals(SampleKey(index, 0, 0).stream())
    return time.thread_time() - started


def decoders() -> dict[str, Callable[[Path], Any]]:
    """Returns ways of decoding a JPEG: that of the recipes, and alternatives."""
    import cv2
    from torchvision.io import ImageReadMode, decode_jpeg

    def torchvision(path: Path) -> Any:
        content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        return decode_jpeg(content, ImageReadMode.RGB)

    def pillow(path: Path) -> Any:
        return np.asarray(Image.open(path).convert('RGB'))

    def drafted(path: Path) -> Any:
        image = Image.open(path)
        # The decoder itself halves the sides.
        image.draft('RGB', tuple(side // 2 for side in image.size))
        return np.asarray(image.convert('RGB'))

    known = {
        'torchvision': torchvision,
        'Pillow': pillow,
        'OpenCV': lambda path: cv2.imread(str(path)),
        'Pillow, half the sides': drafted,
    }
    try:
        from turbojpeg import TurboJPEG
    except ImportError:
        return known
    turbo = TurboJPEG()
    return known | {'TurboJPEG': lambda path: turbo.decode(path.read_bytes())}


def measure_decoding(paths: list[Path]) -> dict[str, float]:
    """Returns milliseconds per image, by decoder."""
    ways = decoders()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for path in paths:
        for name in random.sample(list(ways), len(ways)):
            started = time.thread_time()
            ways[name](path)
            times[name].append(time.thread_time() - started)
    return {name: 1000 * statistics.fmean(values) for name, values in times.items()}


def cores_needed(device_rate: float, core_rate: float, devices: int = DEVICES) -> float:
    """Returns the number of cores that keep the devices busy.

    Args:
        device_rate (float): Images per second that one device trains on.
        core_rate (float): Images per second that one core delivers.
        devices (int): Number of devices. Defaults to 8.
    """
    return devices * device_rate / core_rate


def print_config(config: str, result: Mapping[str, Any]) -> None:
    print(f'{config}')
    for num_workers, rates in result['loader'].items():
        per_core, by_clock = rates['per core'], rates['by clock']
        print(f'  {num_workers} workers: {per_core:8.1f} images/s per core, {by_clock:8.1f} by wall-clock time')
    total = sum(result['transforms'].values())
    for name, milliseconds in result['transforms'].items():
        print(f'  {name:<30} {milliseconds:8.3f} ms {100 * milliseconds / total:6.1f} %')
    print(f'  {"all":<30} {total:8.3f} ms')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--configs', nargs='+', default=list(RECIPES), help='default: without and with random erasing')
    parser.add_argument('--images', type=int, default=320, help='number of JPEGs')
    parser.add_argument('--epochs', type=int, default=2, help='epochs over the images, for each number of workers')
    parser.add_argument('--workers', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--device-rates', nargs='+', type=float, default=[500, 1000, 2000], help='images/s of one GPU')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/data_loading.json'))
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder), args.images)
        size = statistics.fmean(path.stat().st_size for path in paths)
        print(f'{len(paths)} images of {size / 1000:.0f} kB')
        results['mean bytes'] = size
        results['decoding'] = measure_decoding(paths)
        for name, milliseconds in results['decoding'].items():
            print(f'  decoding by {name:<30} {milliseconds:8.3f} ms')
        for config in args.configs:
            loader = {str(number): measure_loader(config, Path(folder), number, args.epochs) for number in args.workers}
            transforms = measure_transforms(config, Path(folder), args.images)
            cores = {
                str(rate): cores_needed(rate, min(rates['per core'] for rates in loader.values()))
                for rate in args.device_rates
            }
            results[config] = dict(loader=loader, transforms=transforms, cores=cores)
            print_config(config, results[config])
            for rate, number in cores.items():
                read = DEVICES * float(rate) * size / 1e6
                print(f'  {DEVICES} GPUs of {rate} images/s: {number:.0f} cores, {read:.0f} MB/s read')
    write_report(args.out, args, results)


if __name__ == '__main__':
    main()
