// Exceptions: errors of calls to the host, and failures of a delivery.

export class Failure extends Error {
  name = "Failure";

  /**
   * @param {string} reason
   * @param {{ userText?: string, retry?: boolean | number, cause?: unknown }} [options]
   */
  constructor(reason, options = {}) {
    super(reason, "cause" in options ? { cause: options.cause } : undefined);
    this.userText = options.userText;
    this.retry = options.retry;
  }
}

export class NoHostError extends Error {
  name = "NoHostError";
}

export class CallError extends Error {
  name = "CallError";
  /** @type {boolean | number} */
  retry = false;

  /**
   * @param {string} call
   * @param {string} [text] the error text
   */
  constructor(call, text = "failed") {
    super(`${call}: ${text}`);
    this.call = call;
  }
}

export class InvalidError extends CallError {
  name = "InvalidError";
}

export class DeniedError extends CallError {
  name = "DeniedError";
}

export class NotFoundError extends CallError {
  name = "NotFoundError";
}

export class RateLimitedError extends CallError {
  name = "RateLimitedError";

  /**
   * @param {string} call
   * @param {number} [retryAfter]
   */
  constructor(call, retryAfter) {
    super(call, retryAfter === undefined ? "rate limited" : `rate limited; retry after ${retryAfter} s`);
    this.retryAfter = retryAfter;
    this.retry = retryAfter ?? true;
  }
}

export class UnavailableError extends CallError {
  name = "UnavailableError";
  retry = true;
}

export class TimeoutError extends CallError {
  name = "TimeoutError";
  retry = true;
}

export class UnsupportedError extends CallError {
  name = "UnsupportedError";
}

export class MisconfiguredError extends CallError {
  name = "MisconfiguredError";
}
