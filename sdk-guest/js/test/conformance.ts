// Checks that the package matches its types: `tsc` fails if it doesn't.
import type * as declared from "../types/index.d.ts";
import * as real from "../src/index.js";

export const conforms: typeof declared = real;
