// The interface as the host has it. Bundled into components only; elsewhere `nobody.js` takes its place.
export { default } from "modhost:module/completion@0.1.0";
