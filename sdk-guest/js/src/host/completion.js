// The interface of the host. Bundled into components only; elsewhere `no-host.js` replaces it.
export { default } from "modhost:module/completion@0.1.0";
