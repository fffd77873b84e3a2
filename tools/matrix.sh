#!/usr/bin/env bash
# Try this checkout in fresh environments: tools/matrix.sh [--short] [STACK ...]; all of them by default.
#
# Each is installed, looked at by the doctor, builds every backbone, trains Mask R-CNN and UperNet for ten iterations,
# resumes, and runs the quick tests; --short leaves out UperNet and the tests. Folders of environments and logs are
# below $MATRIX_DIR, by default a temporary folder. The last lines are a Markdown table; the exit status is 1 if
# anything failed. A stack whose Python is not found ($PYTHON, python3.N, pyenv's) is skipped, and said to be.
set -u
cd "$(dirname "$0")/.."
short=
if [ "${1:-}" = --short ]; then short=1; shift; fi
all=(lowest newest onedl mmcv_2.2 setuptools_84 opencv_headless python_3.10 python_3.12 python_3.13 python_3.14)
[ $# -gt 0 ] || set -- "${all[@]}"
for name; do
  case " ${all[*]} " in *" $name "*) ;; *) echo "no stack $name; choose from ${all[*]}" >&2; exit 2 ;; esac
done
folder=${MATRIX_DIR:-$(mktemp -d)}
mkdir -p "$folder"

# python_of VERSION: an interpreter of Python VERSION, 3.10 or 3.12; nothing where there is none.
python_of() {
  "python$1" --version >/dev/null 2>&1 && command -v "python$1" && return  # a shim of pyenv may be there and fail
  ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1."*/bin/python 2>/dev/null | sort -V | tail -1
}

# install NAME PYTHON: an environment below $env with this checkout, tests included.
install() {
  local extras=openmmlab,transfer,test
  [ "$1" = onedl ] && extras=onedl,transfer,test
  "$2" -m venv --clear "$env" && "$env/bin/python" -m pip install -q 'pip>=22' || return
  if [ "$1" = lowest ]; then
    # The lowest releases that setup.py declares, and the newest of what it does not.
    "$env/bin/python" -m venv "$folder/uv" && "$folder/uv/bin/pip" install -q uv &&
      "$folder/uv/bin/uv" pip compile -q --resolution lowest-direct -p "$env/bin/python" setup.py \
        --extra openmmlab --extra transfer --extra test -o "$logs/lowest.txt" || return
    pip install -c "$logs/lowest.txt" -e ".[$extras]"
    return
  fi
  pip install -e ".[$extras]" || return
  case $1 in
    mmcv_2.2) pip uninstall -y mmcv-lite && pip install --no-deps 'mmcv-lite==2.2.0' ;;
    setuptools_84) pip install 'setuptools>=84' ;;
    opencv_headless) pip uninstall -y opencv-python && pip install opencv-python-headless ;;
  esac
}

pip() { "$env/bin/python" -m pip "$@"; }

# Without values: building the largest takes gigabytes.
every_backbone() {
  "$env/bin/python" - <<'EOF'
from hybrid_backbones import create_backbone, list_backbones
from hybrid_backbones._meta import meta_device

for name in list_backbones():
    with meta_device():
        create_backbone(name)
print(len(list_backbones()), 'backbones')
EOF
}

# train CONFIG ITERATIONS [--resume]
train() {
  "$env/bin/python" tools/train.py "configs/$1.py" --work-dir "$logs/$1" "${@:3}" --cfg-options \
    train_cfg.max_iters="$2" train_cfg.val_interval=1000 default_hooks.checkpoint.interval=10
}

quick_tests() {
  "$env/bin/python" -m pytest -q -p no:cacheprovider tests/compat tests/layers tests/checkpoints tests/test_import.py \
    tests/backbones/test_timm.py tests/engine/test_compiling.py
}

# step NAME COMMAND...: a cell of the table; later steps are not tried when one fails.
step() {
  [ "$failed" ] && { row+=' |'; return; }
  if "${@:2}" >"$logs/$1.log" 2>&1; then
    row+=' yes |'
  else
    row+=" **no** |" failed=$1 status=1
    printf '%s: %s failed, see %s\n' "$name" "$1" "$logs/$1.log" >&2
    tail -n 15 "$logs/$1.log" >&2
  fi
}

versions() {
  "$env/bin/python" - <<'EOF'
import platform
from importlib import metadata


def version(*names):
    for name in names:
        try:
            return ('onedl ' if name.startswith('onedl') else '') + metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return 'none'


shown = [('torch',), ('timm',), ('numpy',)]
for name in ('mmengine', 'mmcv', 'mmdetection', 'mmsegmentation'):
    shown.append((f'onedl-{name}', name.replace('mmdetection', 'mmdet'), 'mmcv-lite' if name == 'mmcv' else name))
print(' | '.join([platform.python_version(), *(version(*names) for names in shown)]))
EOF
}

status=0
rows=()
for name; do
  python=${PYTHON:-python3}
  [[ $name != python_* ]] || python=$(python_of "${name#python_}")
  if [ -z "$python" ]; then
    rows+=("| $name | not found |")
    continue
  fi
  env=$folder/$name/env logs=$folder/$name row='' failed=''
  rm -rf "$logs"
  mkdir -p "$logs"
  printf '== %s\n' "$name"
  step install install "$name" "$python"
  step doctor "$env/bin/python" -m hybrid_backbones.doctor
  step backbones every_backbone
  step mask_rcnn train maskrcnn_conv2former_n_shapes 10
  step resume train maskrcnn_conv2former_n_shapes 12 --resume
  if [ -z "$short" ]; then
    step upernet train upernet_conv2former_n_shapes 10
    step tests quick_tests
  fi
  rows+=("| $name | $( [ "$failed" = install ] && echo '| | | | | | | ' || versions) |$row")
  rm -rf "$env"
done

echo
echo "| stack | Python | torch | timm | NumPy | mmengine | mmcv | mmdet | mmseg | installs | doctor | every backbone |" \
  "Mask R-CNN | resumes |$([ "$short" ] || echo ' UperNet | quick tests |')"
printf '|---%.0s' $(seq $([ "$short" ] && echo 14 || echo 16)); echo '|'
printf '%s\n' "${rows[@]}"
exit $status
