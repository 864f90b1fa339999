"""Puts configs and tools where OpenMMLab's ``mim`` and mmengine look for them: in the folder ``.mim`` of the package.

All other settings are in ``pyproject.toml``.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARRIED = ('configs', 'tools', 'model-index.yml')


class BuildWithConfigs(build_py):
    """Copies them into a wheel. An editable install finds them in the repository."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, 'smmix_mm/.mim')
        # An earlier build may have left files that are gone since.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in CARRIED:
            if Path(name).is_dir():
                shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(name, folder)


setup(cmdclass={'build_py': BuildWithConfigs})
