#!/usr/bin/env bash
# Everything that only a GPU can prove, in one call of under 10 minutes: build, tests marked `cuda`, benchmarks,
# one small case under compute-sanitizer. Writes <gpu>-<date>.json to $OUT, or benchmarks/results.
# Arguments are those of `python -m aesg bench gpu`, which has the steps; PYTHON names another python3.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m aesg bench gpu "$@"
