// The interface of the host. Bundled into components only; elsewhere `no-host.js` replaces it.
export { default } from "wasi:config/store@0.2.0-rc.1";
