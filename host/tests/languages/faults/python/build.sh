modhost-componentize broken.py -o assistant.wasm
