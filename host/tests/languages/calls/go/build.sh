#!/bin/sh
# As the samples do.
set -e
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-checklinkname=0 -s -w" -o asks.core.wasm .
modhost componentize asks.core.wasm --out asks.wasm
