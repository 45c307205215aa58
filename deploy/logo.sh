#!/usr/bin/env bash
# Makes logo.png, 256x256, of deploy/logo.svg (needs rsvg-convert: apt install librsvg2-bin).
set -euo pipefail
cd "$(dirname "$0")/.."
rsvg-convert --width 256 --height 256 --output logo.png deploy/logo.svg
