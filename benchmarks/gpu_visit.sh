#!/usr/bin/env bash
# One visit to a GPU machine: the kernel tests compiled, the sweep of settings, the benchmark beside its peers.
# Run in the repository's root; results go to the directory named (benchmarks/results unless said).
#   benchmarks/gpu_visit.sh [DIR] [tests] [tune] [bench]     all three unless some are named
set -uo pipefail
out=${1:-benchmarks/results}
shift || true
what=${*:-tests tune bench}
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$out"
failed=0
case " $what " in *" tests "*)
    python3 -m pytest -p no:cacheprovider -m gpu tests/test_kernels_*.py --durations=5 ${PYTEST_EXTRA:-} 2>&1 | tee "$out/kernel_tests.log" || failed=1 ;;
esac
case " $what " in *" tune "*)
    python3 benchmarks/tune_attention.py --out "$out/tune_attention.json" 2>&1 | tee "$out/tune_attention.log" || failed=1 ;;
esac
case " $what " in *" bench "*)
    python3 -m kernels.bench --out "$out/bench_attention.json" 2>&1 | tee "$out/bench_attention.log" || failed=1 ;;
esac
exit $failed
