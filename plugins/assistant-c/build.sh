#!/bin/sh
# Builds assistant.wasm. The compiler is the clang in Zig, which includes everything a C program for WebAssembly needs.
# `pip install -r requirements.txt` installs it as `python-zig`. To use another Zig, run: ZIG=zig sh build.sh
set -e
sdk=../../sdk-guest/c
modhost bindings c --out bindings
${ZIG:-python-zig} cc -target wasm32-wasi -mexec-model=reactor -Os -Wall -Wextra -Wl,-z,stack-size=65536 \
  -I bindings -I $sdk assistant.c $sdk/modhost.c bindings/module.c bindings/module_component_type.o \
  -o assistant.core.wasm
modhost componentize assistant.core.wasm --out assistant.wasm
