// The interface as the host has it. Bundled into components only; elsewhere `nobody.js` takes its place.
export { default } from "wasi:random/random@0.2.0";
