// Randomness. QuickJS has a sequence that is fixed when the component is made; that of the host takes its place when an
// event comes. While the module is loaded there is no host to ask.
import host from "#host/random";

const POOL = 512; // bytes at a time: a call costs more than they do

let pool = new Uint8Array(0);
let used = 0;

/** @returns {number} from 0 to 1, 1 excluded, as `Math.random` has it */
function random() {
  if (used + 8 > pool.length) {
    pool = host.getRandomBytes(POOL);
    used = 0;
  }
  const view = new DataView(pool.buffer, pool.byteOffset + used);
  used += 8;
  return ((view.getUint32(0) >>> 5) * 2 ** 26 + (view.getUint32(4) >>> 6)) / 2 ** 53;
}

let begun = false;
const unbegun = Math.random;

/** An event has come: from now on there is a host to ask. */
export function begin() {
  begun = true;
}

/** What takes the place of `Math.random` in a component. */
export function mathRandom() {
  return begun ? random() : unbegun();
}
