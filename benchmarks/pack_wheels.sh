#!/usr/bin/env bash
# Packs what a GPU host without network lacks, in parts of at most 60 MB (PART_BYTES):
#
#   benchmarks/pack_wheels.sh            # packages, as .wheels/parts/site.tar.xz.1 and so on
#   benchmarks/pack_wheels.sh kernels    # .wheels/kernels, which benchmarks.gpu.precompile has filled
#
# The host has Python 3.12 and a torch of its own with what that brings: numpy, numba, scipy,
# OpenCV, pytest and the like. There benchmarks/unpack_wheels.sh joins the parts. Versions are
# those of scripts/lock/python.txt. Warp travels without its compiler for CPUs (27 of 149 MB): the
# host then has GPU devices only.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
part_bytes=${PART_BYTES:-50000000}
python=${PYTHON:-$root/.venv/bin/python}
packages=(
  pydantic pydantic-core annotated-types typing-extensions typing-inspection
  mujoco mujoco-core mujoco-warp warp-lang trimesh
  rsl-rl-lib tensordict pyvers gitpython gitdb smmap
)

pack_kernels() {
  # without what was compiled for the CPU, and without sources
  tar --sort=name --exclude='*.o' --exclude='*.cpp' --exclude='*.cu' -C .wheels -cf - kernels |
    xz -T0 >.wheels/parts/kernels.tar.xz
}

download() {
  local libc platforms=(--platform manylinux2014_x86_64)
  for libc in 2_5 2_12 2_17 2_24 2_27 2_28 2_31 2_34; do
    platforms+=(--platform "manylinux_${libc}_x86_64")
  done
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" --constraint scripts/lock/python.txt \
    --dest .wheels/raw "${packages[@]}"
}

pack_packages() {
  rm -rf .wheels/raw .wheels/site .wheels/parts/site*
  download
  mkdir .wheels/site
  for wheel in .wheels/raw/*.whl; do unzip -qo "$wheel" -d .wheels/site; done
  rm -r .wheels/site/warp/bin/warp-clang.so .wheels/site/warp/examples
  tar --sort=name -C .wheels/site -cf - . | xz -T0 | split --numeric-suffixes=1 \
    --suffix-length=1 --bytes "$part_bytes" - .wheels/parts/site.tar.xz.
  (cd .wheels/parts && sha256sum site.tar.xz.* >site.sums)
  rm -r .wheels/site
}

cd "$root"
mkdir -p .wheels/parts
case ${1:-packages} in
kernels) pack_kernels ;;
packages) pack_packages ;;
*)
  echo "pack_wheels: '$1': say kernels, or nothing" >&2
  exit 2
  ;;
esac
ls -l .wheels/parts
