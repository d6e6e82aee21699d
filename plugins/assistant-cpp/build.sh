#!/bin/sh
# Builds assistant.wasm. The compiler is the clang in Zig, which includes everything a C++ program for WebAssembly needs.
# `pip install -r requirements.txt` installs it as `python-zig`. To use another Zig, run: ZIG=zig sh build.sh
set -e
sdk=../../sdk-guest/c zig=${ZIG:-python-zig}
modhost bindings c --out bindings
# The bindings and the SDK are compiled as C.
for file in bindings/module.c $sdk/modhost.c; do
  $zig cc -target wasm32-wasi -Os -I bindings -I $sdk -c $file -o bindings/"$(basename $file .c)".o
done
$zig c++ -target wasm32-wasi -mexec-model=reactor -Os -std=c++20 -fno-exceptions -Wall -Wextra \
  -Wl,-z,stack-size=65536 -I bindings -I $sdk \
  assistant.cpp bindings/module.o bindings/modhost.o bindings/module_component_type.o -o assistant.core.wasm
modhost componentize assistant.core.wasm --out assistant.wasm
