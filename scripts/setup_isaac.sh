#!/usr/bin/env bash
# Makes .venv-isaac, the environment of the physics backend `isaaclab`: Isaac Lab 3.0 without Isaac
# Sim, in the versions of scripts/lock/isaac.txt. PYTHON names the interpreter; otherwise it takes a
# Python 3.12, for which Isaac Lab is made, or a 3.11, on which this part of it runs as well.
# If nothing changed it does nothing.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv-isaac
lock=$root/scripts/lock/isaac.txt
readonly isaaclab=isaaclab==3.0.0 uv_version=0.13.9

say() { echo "setup-isaac: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

has_gpu() { [[ -e /proc/driver/nvidia/version ]] || command -v nvidia-smi >/dev/null; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
is_usable() {
  "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
    2>/dev/null
}

pythons() { # prints usable interpreters, 3.12 first
  local version path
  if [[ -n ${PYTHON:-} ]]; then
    is_usable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or 3.12 with venv"
    echo "$PYTHON"
    return
  fi
  for version in 3.12 3.11; do
    for path in "$(command -v python$version || true)" "$root/.venv/bin/python" \
      "${PYENV_ROOT:-$HOME/.pyenv}"/versions/$version.*/bin/python; do
      [[ -x $path ]] && is_usable "$path" &&
        [[ $("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])') == "$version" ]] &&
        echo "$path" && break
    done
  done
}

install_torch() { # without a GPU the CPU build: the default one brings 3 GB of CUDA libraries
  local version
  version=$(sed -n 's/^torch==//p' "$lock")
  if has_gpu; then
    pip install -q "torch==$version"
    return
  fi
  pip install -q --no-deps "torch==$version+cpu" 2>/dev/null || {
    pip install -q "uv==$uv_version"
    "$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps --torch-backend=cpu \
      "torch==$version"
  } 2>/dev/null
}

make_venv() { # with the first interpreter for which there is a torch
  local python
  for python in "${candidates[@]}"; do
    rm -rf "$venv"
    say "making .venv-isaac with $("$python" -V)"
    "$python" -m venv "$venv"
    install_torch && return
    say "there is no CPU build of torch for $("$python" -V)"
  done
  say "taking the default build of torch, with 3 GB of CUDA libraries"
  pip install -q "torch==$(sed -n 's/^torch==//p' "$lock")"
}

mapfile -t candidates < <(pythons)
[[ ${#candidates[@]} -gt 0 ]] ||
  fail "there is no Python 3.12 or 3.11 with venv; run: sudo apt-get install -y python3.12-venv," \
    "or name one with PYTHON=..."
exec {guard}<"$root"
flock "$guard" # one set-up at a time
stamp=$venv/setup_fingerprint
wanted=$(has_gpu && echo gpu; cat "$0" "$lock" | sha256sum)
if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
  make_venv
  say "installing Isaac Lab; 2 GB"
  pip install -q -r "$lock"
  # without what it lists for Isaac Sim, teleoperation and file formats, and for Python 3.12 only
  pip install -q --no-deps --ignore-requires-python "$isaaclab"
  touch "$venv/COLCON_IGNORE"
  echo "$wanted" >"$stamp"
  say "done; task.physics.backend=isaaclab finds it"
fi
