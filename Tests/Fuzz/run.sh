#!/usr/bin/env bash
# Fuzzes what reads bytes from outside, with libFuzzer. Usage: Tests/Fuzz/run.sh [SECONDS]
# The corpus in Tests/Fuzz/corpus is the start; what is found goes to .build-fuzz.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-60}
FUZZ=1 swift build -c release --scratch-path .build-fuzz --sanitize fuzzer -Xswiftc -enable-testing --product Fuzz
mkdir -p .build-fuzz/corpus
exec .build-fuzz/release/Fuzz .build-fuzz/corpus Tests/Fuzz/corpus -max_total_time="$seconds" -max_len=4096 \
    -artifact_prefix=.build-fuzz/ -print_final_stats=1
