"""Where the configs of this package are, and how they are found by name from any folder."""

from pathlib import Path

from mmengine.config import Config

PACKAGE = Path(__file__).resolve().parent
# A wheel carries configs and tools, see setup.py; in a clone they stand beside the package.
FROM_WHEEL = (PACKAGE / '.mim').is_dir()
CONFIGS = PACKAGE / '.mim/configs' if FROM_WHEEL else PACKAGE.parent / 'configs'
PREFIX = 'smmix_mm::'


def find_config(name: str) -> Path:
    """Finds a config of this package.

    Args:
        name (str): Its name, such as ``'deit-small_smmix_8xb128-300e_in1k'``, or its path below ``configs``, such as
            ``'smmix/deit-small_smmix_8xb128-300e_in1k.py'``. ``.py`` and the prefix ``smmix_mm::`` may be left out.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    path = f'{name.removeprefix(PREFIX).removesuffix(".py")}.py'
    found = [CONFIGS / path] if '/' in path else list(CONFIGS.glob(f'[!_]*/{path}'))
    if not (found and found[0].is_file()):
        raise FileNotFoundError(
            f'there is no config {name!r} in {CONFIGS}; needed is its path, FOLDER/NAME.py, or the NAME alone'
        )
    return found[0]


def get_config(name: str) -> Config:
    """Reads a config of this package.

    Args:
        name (str): As in :func:`find_config`.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    return Config.fromfile(find_config(name))


def allow_as_base() -> None:
    """Lets any config inherit by ``_base_ = 'smmix_mm::FOLDER/NAME.py'``.

    mmengine admits only packages that it lists itself, and builds what it inherits in the scope before the ``::``. The
    configs here belong to the scopes of three libraries, so they keep that of the config, ``default_scope``.
    """
    of_others = Config._get_cfg_path

    def get_path(base: str, filename: str) -> tuple[str, str | None]:
        return (str(find_config(base)), None) if base.startswith(PREFIX) else of_others(base, filename)

    Config._get_cfg_path = staticmethod(get_path)


allow_as_base()
