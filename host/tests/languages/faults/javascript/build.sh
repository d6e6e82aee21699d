../../../../../sdk-guest/js/bin/modhost-componentize.js broken.js -o assistant.wasm
