#!/bin/sh
# Builds assistant.wasm with Go 1.26 or newer, from https://go.dev/dl or from `pip install -r requirements.txt`.
#
# -checklinkname=0 lets the bindings use an internal function of the Go runtime to allocate memory before the runtime has started.
# -trimpath removes the paths of this machine from the component. A panic still names file and line.
set -e
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-checklinkname=0 -s -w" -o assistant.core.wasm .
modhost componentize assistant.core.wasm --out assistant.wasm
