#!/usr/bin/env bash
# Builds rolegraft for NVIDIA's cards on a machine that needs neither a card nor a CUDA toolkit: build.sh [DIR]. The toolkit is
# put together from NVIDIA's wheels on PyPI (0.7 GB to fetch, 1.2 GB unpacked) in DIR, which is kept and not fetched again, or in
# a folder that is removed. Half an hour on two cores. Needs the Rust toolchain, python3 with pip, readelf, and a C++ compiler that
# CUDA 13.0 takes (gcc 6 to 15).
# FEATURES: cargo's features (cuda). flash-attn fetches CUTLASS with git; cudnn wants its library besides. PACKAGE: what is built
# (rolegraft-cli). CUDA_COMPUTE_CAP: the card (90: H100, H200; 80: A100; 89: L4, L40, RTX 40; 100: B200); from 90 on the program
# runs on that kind of card alone. CUDAFORGE_THREADS: kernels at once.
set -euo pipefail
cuda=13.0.2   # its kernels ask for a driver of 580 or later
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
package=${PACKAGE:-rolegraft-cli} features=${FEATURES:-cuda}
if [ $# -gt 0 ]; then
  mkdir -p "$1"; dir=$(cd "$1" && pwd)
else
  dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
fi
prefix=$dir/nvidia/cu13

# The package cuda-toolkit holds nothing; its extras pin the wheels that make a release up, whose own numbers differ.
if [ ! -e "$dir/complete-$cuda" ]; then
  python3 -m pip install -q --only-binary=:all: --upgrade --target "$dir" \
    "cuda-toolkit[nvcc,crt,nvvm,cccl,cudart,cublas,curand,nvrtc]==$cuda"
  chmod +x "$prefix"/bin/* "$prefix"/nvvm/bin/*   # for installers that drop the mode
  # Wheels have libcublas.so.13 alone; the linker and the build scripts look for libcublas.so, and for lib64.
  ln -sfn lib "$prefix/lib64"
  for library in "$prefix"/lib/lib*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
  done
  # The driver's library comes with the driver, and no wheel has the toolkit's stub of it. This one has every function that
  # cuda.h names, under every version of its name; each gives CUDA_ERROR_STUB_LIBRARY, as the toolkit's does.
  mkdir -p "$prefix/lib/stubs"
  grep -ohE '\bcu[A-Z][A-Za-z0-9_]*' "$prefix"/include/cuda*.h | sort -u |
    sed 's/.*/int &(void) { return 34; }/' > "$dir/stub.c"
  cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$prefix/lib/stubs/libcuda.so" "$dir/stub.c"
  ln -sf libcuda.so "$prefix/lib/stubs/libcuda.so.1"
  : > "$dir/complete-$cuda"
fi

export CUDA_HOME=$prefix CUDA_PATH=$prefix CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} PATH=$prefix/bin:$PATH
export LIBRARY_PATH=$prefix/lib:$prefix/lib/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}
nvcc --version | grep release
cd "$root"
SECONDS=0
cargo build --release --locked -p "$package" --features "$features"
echo "built $package with $features for $CUDA_COMPUTE_CAP in $((SECONDS / 60)) min $((SECONDS % 60)) s"
binary=${CARGO_TARGET_DIR:-target}/release/rolegraft
if [ "$package" = rolegraft-cli ]; then
  echo "$(realpath "$binary"): $(stat -c %s "$binary") bytes; needs:"
  readelf -d "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/  \1/p'
  # With the wheels' libraries and the stub in the driver's place it must start, if only to play on the CPU.
  LD_LIBRARY_PATH=$prefix/lib:$prefix/lib/stubs "$binary" --version
fi
