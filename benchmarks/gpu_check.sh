#!/usr/bin/env bash
# Everything that only a GPU can prove, in one call of under 10 minutes: build, tests marked `cuda`, one small case
# under compute-sanitizer, benchmarks. Writes JSON into ${1:-benchmarks/results}.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
mkdir -p "$out"

arch=$(python3 -c 'import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))')
AESG_CUDA=1 TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$arch} \
  python3 -m pip install -q -e . --no-build-isolation --no-deps

python3 -m pytest -q -m cuda tests

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 9 --kernel-regex kns=aesg \
      python3 -m pytest -q -m cuda tests/ops -k "1-5000-64-10 or 256-9000-16-64 or bits_of_the_cpu"
  done
else
  echo "compute-sanitizer: not found, left out"
fi

name=$(python3 -c 'import torch; print(torch.cuda.get_device_name().lower().replace(" ", "-"))')
stem="$out/$name-$(date +%Y%m%d)"
python3 -m aesg.benchmarks.seeds --device cuda --n 1e6 --dim 64 --batch 1,256,4096 --json "$stem-seeds.json"
python3 -m aesg.benchmarks.spread --device cuda --n 1e6 --hops 1,4 --batch 1,4096 --graph random \
  --json "$stem-spread.json"
