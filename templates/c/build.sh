#!/bin/sh
# Makes module.wasm. The compiler is Zig's clang, which has what a C program for WebAssembly needs: `pip install
# -r requirements.txt` brings it as `python-zig`. With another Zig: ZIG=zig sh build.sh
set -e
[ -d build ] || echo "the first build takes a minute or two, as Zig compiles the standard library"
modhost bindings c --out build/bindings
${ZIG:-python-zig} cc -target wasm32-wasi -mexec-model=reactor -Os -Wall -Wextra -Wl,-z,stack-size=65536 \
  -I build/bindings -I sdk answer.c sdk/modhost.c build/bindings/module.c build/bindings/module_component_type.o \
  -o build/core.wasm
modhost componentize build/core.wasm --out module.wasm
