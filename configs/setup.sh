#!/usr/bin/env bash
# Make the virtual environment: exact versions from constraints.txt, PyTorch first.
# Without an NVIDIA GPU the CPU build of PyTorch is taken where the configured package index offers one; otherwise the
# default build, which runs on the CPU too. TORCH_INDEX_URL names an index to take PyTorch from; TORCH_VARIANT=default
# skips the search for a CPU build.
set -euo pipefail
venv=$1
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
"$python" - <<'PY' || { echo "Pixr needs Python 3.11 or 3.12; name one with PYTHON=…" >&2; exit 2; }
import sys
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PY
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

torch=$(sed -n 's/^torch==//p' "$here/constraints.txt")
vision=$(sed -n 's/^torchvision==//p' "$here/constraints.txt")
if ! "$venv/bin/python" -c "import torch, torchvision" 2>/dev/null; then
  echo "installing PyTorch $torch"
  index=(${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"})
  if [ "${TORCH_VARIANT:-auto}" = default ] || command -v nvidia-smi >/dev/null ||
    ! pip install "${index[@]}" "torch==$torch+cpu" "torchvision==$vision+cpu" 2>/dev/null; then
    pip install "${index[@]}" "torch==$torch" "torchvision==$vision"
  fi
fi
echo "installing Pixr"
pip install -c "$here/constraints.txt" -e "$here[dev]"
if "$venv/bin/python" -m pip show -q decord 2>/dev/null; then
  echo "decord is installed beside decord2 and owns the same module: pip uninstall decord, then reinstall decord2" >&2
  exit 2
fi
