// The public API, described in ../types/index.d.ts.
export * as config from "./config.js";
export { complete, completeIntoReply, stream } from "./completion.js";
export {
  CallError,
  DeniedError,
  Failure,
  InvalidError,
  MisconfiguredError,
  NoHostError,
  NotFoundError,
  RateLimitedError,
  TimeoutError,
  UnavailableError,
  UnsupportedError,
} from "./errors.js";
export * as http from "./http.js";
export * as messages from "./messages.js";
export { defineModule } from "./module.js";
export { NEXUS_MESSAGE_LIMIT } from "./other-systems.js";
export { referencesTo } from "./references.js";
export { search } from "./search.js";
export { startStep, step } from "./steps.js";
export { Store } from "./store.js";
