// Replaces the host outside of a component, for example in a test.
import { NoHostError } from "./errors.js";

const absent = () => {
  throw new NoHostError("no host. Host functions work only in a component that a host runs.");
};

/**
 * An interface whose functions and resources all throw.
 *
 * @type {any}
 */
const noHost = new Proxy(absent, { get: () => noHost });

export default noHost;
