#!/bin/sh
# Builds module.wasm. The compiler is the clang in Zig, which includes everything a C++ program for WebAssembly needs.
# `pip install -r requirements.txt` installs it as `python-zig`. To use another Zig, run: ZIG=zig sh build.sh
set -e
[ -d build ] || echo "the first build takes a minute or two, because Zig compiles the standard library"
zig=${ZIG:-python-zig}
modhost bindings c --out build/bindings
# The bindings and the SDK are compiled as C.
for file in build/bindings/module.c sdk/modhost.c; do
  $zig cc -target wasm32-wasi -Os -I build/bindings -I sdk -c $file -o build/"$(basename $file .c)".o
done
$zig c++ -target wasm32-wasi -mexec-model=reactor -Os -std=c++20 -fno-exceptions -Wall -Wextra \
  -Wl,-z,stack-size=65536 -I build/bindings -I sdk \
  answer.cpp build/module.o build/modhost.o build/bindings/module_component_type.o -o build/core.wasm
modhost componentize build/core.wasm --out module.wasm
