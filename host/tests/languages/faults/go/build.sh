#!/bin/sh
# Like the samples.
set -e
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-checklinkname=0 -s -w" -o assistant.core.wasm .
modhost componentize assistant.core.wasm --out assistant.wasm
