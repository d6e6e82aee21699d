// What stands for the host where there is none: on the machine of an author, say in a test.
import { NoHostError } from "./errors.js";

const absent = () => {
  throw new NoHostError("there is no host here to answer. Calls work in a component that a host runs.");
};

/**
 * An interface whose functions, and those of its resources, all throw.
 *
 * @type {any}
 */
const nobody = new Proxy(absent, { get: () => nobody });

export default nobody;
