#!/bin/sh
# Like the samples, but with assertions: with -Os, zig cc omits them.
set -e
sdk=../../../../../sdk-guest/c
modhost bindings c --out bindings
${ZIG:-python-zig} cc -target wasm32-wasi -mexec-model=reactor -Os -UNDEBUG -Wl,-z,stack-size=65536 \
  -I bindings -I $sdk broken.c $sdk/modhost.c bindings/module.c bindings/module_component_type.o -o assistant.core.wasm
modhost componentize assistant.core.wasm --out assistant.wasm
