// The interface as the host has it. Bundled into components only; elsewhere `nobody.js` takes its place.
export { default } from "wasi:logging/logging@0.1.0-draft";
