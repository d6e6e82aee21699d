// What the package is, is what its types say: `tsc` fails where they part.
import type * as declared from "../types/index.d.ts";
import * as real from "../src/index.js";

export const conforms: typeof declared = real;
