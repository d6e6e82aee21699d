// The interface of the host. Bundled into components only; elsewhere `no-host.js` replaces it.
export { default } from "wasi:logging/logging@0.1.0-draft";
