// Random numbers. The sequence of QuickJS is fixed when the component is built, so the host provides random numbers when an event
// arrives. While the module is loaded, there is no host.
import host from "#host/random";

const POOL_SIZE = 512; // bytes per call, because the call costs more than the bytes

let pool = new Uint8Array(0);
let used = 0;

/** @returns {number} in the range [0, 1), like `Math.random` */
function hostRandom() {
  if (used + 8 > pool.length) {
    pool = host.getRandomBytes(POOL_SIZE);
    used = 0;
  }
  const view = new DataView(pool.buffer, pool.byteOffset + used);
  used += 8;
  return ((view.getUint32(0) >>> 5) * 2 ** 26 + (view.getUint32(4) >>> 6)) / 2 ** 53;
}

let hasHost = false;
const quickJsRandom = Math.random;

/** Switches to the host's random numbers. Called when an event arrives. */
export function useHostRandom() {
  hasHost = true;
}

/** Replaces `Math.random` in a component. */
export function mathRandom() {
  return hasHost ? hostRandom() : quickJsRandom();
}
