#!/usr/bin/env bash
# Unpacks on a GPU host what benchmarks/pack_wheels.sh has packed; put it on PYTHONPATH then, and
# SITE/kernels in WARP_CACHE_PATH:
#
#   benchmarks/unpack_wheels.sh PARTS SITE    # folder with all parts, folder to make
set -euo pipefail
parts=$(cd "$1" && pwd)
mkdir -p "$2"
site=$(cd "$2" && pwd)
cd "$parts"
sha256sum --check --quiet site.sums || {
  echo "unpack_wheels: parts in $parts are missing or damaged; bring them again" >&2
  exit 2
}

unpack() { # python3 rather than tar, because a bare host may have no xz
  python3 -c '
import sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz") as archive:
    archive.extractall(sys.argv[1], filter="data")
' "$site"
}

cat site.tar.xz.* | unpack
if [[ -f kernels.tar.xz ]]; then unpack <kernels.tar.xz; fi
