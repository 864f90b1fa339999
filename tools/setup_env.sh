#!/usr/bin/env bash
# Builds the environment of `make demo` and `make test`, or that of `make test-openmmlab`.
# Usage: tools/setup_env.sh VENV [onedl|openmmlab]
# The second argument selects the packages: the maintained onedl-* ones (default), or the original ones on torch 2.1.
# PYTHON names the interpreter; default: the first suitable one of python3, python3.12 .. 3.10.
set -euo pipefail
cd "$(dirname "$0")/.."
usage='usage: tools/setup_env.sh VENV [onedl|openmmlab]'
venv=${1:?$usage}
family=${2:-onedl}

say() { printf '\n== %s\n' "$*"; }
fail() { printf '\nERROR: %s\n' "$*" >&2; exit 1; }
fits() { "$1" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest_python))" 2>/dev/null; }
requirement() { grep -E "^$1[<>=]" "$requirements"; }

case $family in
  onedl)
    requirements=requirements.txt mmcv=onedl-mmcv newest_python=12 limit=
    # Without build isolation this script has to install mmcv's build requirements, among them setuptools 80.
    setuptools='setuptools>=80,<81'
    ;;
  openmmlab)
    requirements=tools/requirements-openmmlab.txt mmcv=mmcv newest_python=11
    limit=' (torch 2.1.2 has no build for later ones)'
    # mmcv 2.1 needs pkg_resources of an older setuptools.
    setuptools='setuptools<70'
    ;;
  *) fail "$usage, but got $family" ;;
esac

find_python() {
  for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
    if fits "$candidate"; then echo "$candidate"; return; fi
  done
  fail "no Python 3.10 to 3.$newest_python found$limit, tried: ${PYTHON:-python3 python3.12 python3.11 python3.10};" \
    "install one, or set it: make PYTHON=/path/to/python3.11 ..."
}

# Prints one line per compiled file, to show progress; the whole output goes to a log.
build_mmcv() {
  local log=$venv/mmcv-build.log
  if ! "$venv/bin/python" -m pip install -v --no-build-isolation --no-deps "$@" "$(requirement "$mmcv")" 2>&1 |
    tee "$log" | { grep --line-buffered -oE '^ *\[[0-9]+/[0-9]+\]' || true; } | sed -u 's/^ */   mmcv ops /'; then
    tail -n 30 "$log" >&2
    fail "mmcv did not build; the whole output is in $log"
  fi
}

ops_work() {
  "$venv/bin/python" - <<'PY'
import torch
from mmcv.ops import nms, roi_align

for device in ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']:
    torch.set_default_device(device)
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [8.0, 8.0, 9.0, 9.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1].tolist() == [0, 2]
    assert roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 1, 1, 5, 5]]), (2, 2)).eq(1).all()
PY
}

# Without nvcc mmcv cannot build CUDA ops, so GPUs are hidden from it. Classification and segmentation do not need these
# ops; detectors on a GPU do.
command -v nvcc >/dev/null || export CUDA_VISIBLE_DEVICES=
command -v c++ >/dev/null || command -v g++ >/dev/null ||
  fail "no C++ compiler found, which mmcv's ops need; on Debian and Ubuntu: apt-get install g++"
python=$(find_python)

# On Debian without python3-venv, venv fails half-way and leaves an environment without pip.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$venv"
  say "Creating $venv with $("$python" --version)"
  "$python" -m venv "$venv" ||
    fail "the venv module of $python does not work; on Debian and Ubuntu: apt-get install python3-venv"
fi
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

say "Installing build tools, torch and torchvision (several GB on Linux, unless they are cached)"
pip --upgrade pip
pip "$setuptools" wheel packaging ninja psutil
pip "$(requirement torch)" "$(requirement torchvision)" "$(requirement numpy)"

say "Installing mmcv with its compiled ops (about 10 minutes on two cores, once; then pip's cache has it)"
build_mmcv

say "Installing the other packages and smmix_mm"
pip --no-build-isolation -r "$requirements"
pip --no-build-isolation --no-deps --editable .

say "Verifying mmcv's compiled ops"
"$venv/bin/python" -c 'import cv2' ||
  fail "OpenCV does not import; on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
if ! ops_work 2>"$venv/mmcv-check.log"; then
  # pip's cached wheel may have been built for another torch.
  say "The ops do not work with this torch ($(tail -n 1 "$venv/mmcv-check.log")); rebuilding mmcv"
  build_mmcv --force-reinstall --no-cache-dir
fi
ops_work || fail "mmcv's compiled ops do not work. See $venv/mmcv-build.log for why they were not built; make sure that" \
  "the C++ compiler works and that Python's headers are there (Debian and Ubuntu: apt-get install g++ python3-dev)," \
  "then: rm -rf $venv and run make again"
"$venv/bin/python" -m pip list --disable-pip-version-check 2>/dev/null | grep -E '^(torch|torchvision|onedl|mm|numpy) ?' || true
