// Before the package is packed: takes the contract along, which in the repository is at its top. Where the package was written
// by `modhost`, it is there already.
import { cpSync, existsSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const own = fileURLToPath(new URL("../wit", import.meta.url));
const contract = fileURLToPath(new URL("../../../wit", import.meta.url));
if (existsSync(`${contract}/world.wit`)) {
  rmSync(own, { recursive: true, force: true });
  cpSync(contract, own, { recursive: true });
}
