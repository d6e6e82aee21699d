#!/bin/sh
# Makes module.wasm, with Go 1.26 or newer: from https://go.dev/dl, or `pip install -r requirements.txt`.
#
# -checklinkname=0: the bindings get memory from Go's runtime before that has started, by a function it doesn't offer.
# -trimpath keeps the paths of this machine out of the component; a panic still names file and line.
set -e
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-checklinkname=0 -s -w" -o build/core.wasm .
modhost componentize build/core.wasm --out module.wasm
