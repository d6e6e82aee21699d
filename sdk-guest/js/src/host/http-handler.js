// The interface as the host has it. Bundled into components only; elsewhere `nobody.js` takes its place.
export { default } from "wasi:http/outgoing-handler@0.2.2";
