// Before the package is packed: takes the contract along, which in the repository is at its top.
import { cpSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const own = fileURLToPath(new URL("../wit", import.meta.url));
rmSync(own, { recursive: true, force: true });
cpSync(fileURLToPath(new URL("../../../wit", import.meta.url)), own, { recursive: true });
