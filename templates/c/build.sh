#!/bin/sh
# Builds module.wasm. The compiler is the clang in Zig, which includes everything a C program for WebAssembly needs.
# `pip install -r requirements.txt` installs it as `python-zig`. To use another Zig, run: ZIG=zig sh build.sh
set -e
[ -d build ] || echo "the first build takes a minute or two, because Zig compiles the standard library"
modhost bindings c --out build/bindings
${ZIG:-python-zig} cc -target wasm32-wasi -mexec-model=reactor -Os -Wall -Wextra -Wl,-z,stack-size=65536 \
  -I build/bindings -I sdk answer.c sdk/modhost.c build/bindings/module.c build/bindings/module_component_type.o \
  -o build/core.wasm
modhost componentize build/core.wasm --out module.wasm
