"""Detects truncated and corrupt checkpoints while reading them."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .unpickling import read_file


class TornCheckpointError(ValueError):
    """A checkpoint is truncated or corrupt.

    Args:
        path (Path): The file.
        fault (str): What is wrong with it, printed after its name.
    """

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f'{path} {fault}')
        self.path, self.fault = path, fault

    def __reduce__(self) -> tuple:
        return TornCheckpointError, (self.path, self.fault)


def read_whole(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU and verifies the checksums of its whole content.

    The file is opened and read once. While it is read, memory holds both the file and its content.

    Args:
        path (str | Path): A file of ``torch.save``. The format of torch before 1.6 has no checksums.

    Returns:
        dict[str, Any]: As :func:`smmix_mm.checkpoint.read_checkpoint` returns it.

    Raises:
        FileNotFoundError: If there is no such file.
        TornCheckpointError: If it is truncated, corrupt, or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}')
    data = path.read_bytes()
    damaged = None
    # Damaged files make the readers of zip files and pickles raise many types of errors.
    try:
        if data[:2] == b'PK':
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                damaged = archive.testzip()
        if damaged is None:
            content = read_file(io.BytesIO(data))
            if not isinstance(content, Mapping):
                raise ValueError(f'it has to hold a dict, but holds a {type(content).__name__}')
            return content
    except Exception as error:
        raise TornCheckpointError(path, f'is truncated or corrupt ({len(data)} bytes: {error})') from error
    raise TornCheckpointError(path, f'is corrupt in {damaged}')


def check_whole(path: str | Path) -> str | None:
    """Returns what is wrong with a checkpoint, or None if it is whole.

    Args:
        path (str | Path): A file as in :func:`read_whole`, or a folder of them, as of sharded checkpoints.
    """
    path = Path(path)
    if path.is_dir():
        parts = sorted(part for part in path.rglob('*.p*') if part.suffix in ('.pt', '.pth'))
        faults = (f'holds {part.name}, which {fault}' for part in parts if (fault := check_whole(part)))
        return next(faults, None) if parts else 'is a folder without checkpoints'
    try:
        read_whole(path)
    except FileNotFoundError:
        return 'does not exist'
    except TornCheckpointError as error:
        return error.fault
    return None
