#!/usr/bin/env bash
# Packs what a GPU host without network lacks, in parts of at most 60 MB (PART_BYTES):
#
#   benchmarks/pack_wheels.sh [FOLDER]        # default .wheels; the parts are in FOLDER/parts
#
# The host has Python 3.12 and a torch of its own with what that brings: numpy, numba, scipy,
# OpenCV, pytest and the like. There benchmarks/unpack_wheels.sh joins the parts. Versions are
# those of scripts/lock/python.txt. Warp travels without its compiler for CPUs (27 of 149 MB): the
# host then has GPU devices only.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/.wheels}
part_bytes=${PART_BYTES:-50000000}
python=${PYTHON:-$root/.venv/bin/python}
packages=(
  pydantic pydantic-core annotated-types typing-extensions typing-inspection
  mujoco mujoco-core mujoco-warp warp-lang trimesh
  rsl-rl-lib tensordict pyvers gitpython gitdb smmap
)

mkdir -p "$folder"
cd "$folder"
platforms=()
for libc in 2_5 2_12 2_17 2_24 2_27 2_28 2_31 2_34; do
  platforms+=(--platform "manylinux_${libc}_x86_64")
done
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
  --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 \
  --constraint "$root/scripts/lock/python.txt" --dest raw "${packages[@]}"

rm -rf site parts
mkdir site parts
for wheel in raw/*.whl; do unzip -qo "$wheel" -d site; done
rm -r site/warp/bin/warp-clang.so site/warp/examples
tar --sort=name -C site -cf - . | xz -T0 | split --numeric-suffixes=1 --suffix-length=1 \
  --bytes "$part_bytes" - parts/site.tar.xz.
(cd parts && sha256sum site.tar.xz.* >site.sums)
rm -r site
ls -l parts
