// The interface as the host has it. Bundled into components only; elsewhere `nobody.js` takes its place.
export { default } from "wasi:http/types@0.2.2";
