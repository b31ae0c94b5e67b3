#!/usr/bin/env bash
# Resolves the dependencies and extras of pyproject.toml into the versions that setup.sh installs,
# for Python 3.10 to 3.13 on Linux, as constraints for pip:
#   python.txt  all but ROS 2      ros-jazzy.txt, ros-kilted.txt  additions for ROS 2 from wheels
# Needs uv. Versions do not change unless pyproject.toml requires it; UPGRADE=1 takes the newest.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/lock"
lock() { # lock OUTPUT OPTION...
  local output=$1; shift
  uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
    ${UPGRADE:+--upgrade} ../../pyproject.toml "$@" -o "$output"
  # torch pins its CUDA libraries itself; markers for Linux and Python below 3.14 are always true
  local always="(sys_platform == 'linux'|python_full_version < '3.14')"
  sed -i -E "/^(cuda|nvidia|triton)/d; s/ and $always//g; s/ ; $always and / ; /; s/ ; $always\$//" "$output"
}
lock python.txt --extra dev --extra bench --extra warp --extra deploy
for distro in jazzy kilted; do
  lock ros-$distro.txt --extra dev --extra ros-$distro -c python.txt
  comm -23 <(sort ros-$distro.txt) <(sort python.txt) >ros-$distro.new
  mv ros-$distro.new ros-$distro.txt
done
