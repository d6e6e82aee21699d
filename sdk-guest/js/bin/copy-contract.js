// Copies the contract from the top level of the repository into the package, before the package is packed. A package written by
// `modhost` already contains it.
import { cpSync, existsSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const own = fileURLToPath(new URL("../wit", import.meta.url));
const contract = fileURLToPath(new URL("../../../wit", import.meta.url));
if (existsSync(`${contract}/world.wit`)) {
  rmSync(own, { recursive: true, force: true });
  cpSync(contract, own, { recursive: true });
}
