"""Tools as real processes, and what they write down."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(tool: str, *args: object, check: bool = True, timeout: int = 300) -> subprocess.CompletedProcess:
    """Runs a program of ``tools/`` in the repository's root, on one thread."""
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / tool, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def scalars(work_dir: Path) -> list[dict]:
    """What mmengine wrote down in a work directory, of all runs in it."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def free_port() -> int:
    """One that nothing on this machine listens to."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
