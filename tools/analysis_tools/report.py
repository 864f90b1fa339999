"""Writes one HTML page about training runs of mmpretrain, mmdet and mmseg, from what mmengine logged. Example:

python tools/analysis_tools/report.py work_dirs/compare/NAME --out report.html
"""

import argparse
import sys
from pathlib import Path

from smmix_mm.visualization.report import save_report


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='work directory of a run, or a folder of them; the first run found is the one that others are compared '
        'with',
    )
    parser.add_argument('--out', type=Path, default=Path('report.html'), help='the page (default: report.html)')
    parser.add_argument('--title', default='Training report', help='its title (default: Training report)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        problems = save_report(args.work_dirs, args.out, args.title)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    for problem in problems:
        print(problem, file=sys.stderr)
    print(args.out)


if __name__ == '__main__':
    main()
