// The interface of the host. Bundled into components only; elsewhere `no-host.js` replaces it.
export { default } from "wasi:http/types@0.2.2";
