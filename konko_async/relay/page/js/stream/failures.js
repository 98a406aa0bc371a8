// What went wrong, in words, and what to do about it.

// By the type that the relay names, or one of ours.
const WORDS = {
  unreachable: ["The relay cannot be reached", "Check your network, and that the relay is still running. Then retry."],
  interrupted: ["The answer was interrupted", "The page was left before it began. Retry to ask again."],
  cut: ["The connection was lost", "This answer cannot be resumed. What had come is kept; retry to ask again."],
  expired: ["The rest of this answer is no longer kept", "The relay keeps answers for a few minutes only. Retry to ask again."],
  not_found: ["There is no such answer", "The relay has forgotten it, or was restarted. Retry to ask again."],
  stream_lost: ["The answer was lost", "The relay that was writing it has ended. Retry to ask again."],
  rate_limited: ["The model is busy", "Too many requests are being made. Wait a moment, then retry."],
  overloaded: ["The model is overloaded", "It takes no more requests for now. Wait a moment, then retry."],
  timeout: ["The model took too long", "Retry, or ask for a shorter answer."],
  upstream_error: ["The model’s server failed", "This is not your fault. Retry in a moment, or choose another model."],
  stream_truncated: ["The answer was cut off", "The model’s server closed the connection. Retry to ask again."],
  too_long: ["The answer grew too long", "Ask for less at once, or set a limit of tokens in the settings."],
  invalid_request_error: ["The request was refused", "Check the settings, and whether this model takes pictures if you sent one; or begin a new chat if this one is longer than the model can read."],
  request_too_large: ["The conversation is too long to send", "Begin a new chat, or edit the question to be shorter."],
  model_not_found: ["This model is not available here", "Choose another model."],
  model_unavailable: ["The model’s server does not have this model", "Choose another model. The operator of the relay may have to correct its list of models."],
  tool_limit: ["The answer came to no end", "The model called tools again and again. Retry, or ask in another way."],
  tool_failed: ["A tool failed", "Retry; if it happens again, tell the operator of the relay."],
  authentication_error: ["The relay asks for a token", "Open the address that it printed when it started, or enter the token."],
  forbidden: ["The relay refused this page", "Open the page at the address that the relay printed."],
  wrong_host: ["The relay is not known by this name", "Open the page at the address that the relay printed."],
  shutdown: ["The relay is shutting down", "What had come is kept. Start the relay again, then retry."],
  internal_error: ["The relay failed", "Retry; if it happens again, see what the relay printed."],
};
const BY_STATUS = { 401: "authentication_error", 403: "forbidden", 404: "not_found", 408: "timeout", 410: "expired", 413: "request_too_large", 421: "wrong_host", 429: "rate_limited", 503: "overloaded", 504: "timeout" };
const OUR_KEY = ["invalid_api_key", "insufficient_quota", "billing_hard_limit_reached"];
const LONGEST_DETAIL = 300;

const isDetail = (value) => typeof value === "string" && value.length > 0;

/** A failure that can be shown. */
export class Failure extends Error {
  constructor(type, { detail = "", code = "", wait = null, status = 0 } = {}) {
    super(type);
    this.type = type;
    this.detail = isDetail(detail) ? detail.slice(0, LONGEST_DETAIL) : "";
    this.code = isDetail(code) ? code : "";
    this.wait = Number.isFinite(wait) && wait > 0 ? wait : null; // seconds
    this.status = status;
  }

  /** What a response with an error's status says. */
  static async of(response) {
    let error = {};
    try {
      ({ error } = await response.json());
    } catch { /* a proxy's page, or nothing: the status has to do */ }
    const header = Number.parseFloat(response.headers.get("retry-after") ?? "");
    return Failure.told(error, { status: response.status, wait: header });
  }

  /** What an error object says. */
  static told(error, { status = 0, wait = null } = {}) {
    const fields = error && typeof error === "object" ? error : {};
    const known = Object.hasOwn(WORDS, fields.type ?? "");
    const type = known ? fields.type : BY_STATUS[status] ?? (status && status < 500 ? "invalid_request_error" : "upstream_error");
    return new Failure(type, { detail: fields.message, code: fields.code, wait: fields.retry_after ?? wait, status });
  }

  static from(record) {
    return new Failure(record.type, record);
  }

  get record() {
    const { type, detail, code, wait, status } = this;
    return { type, detail, code, wait, status };
  }

  get title() {
    return (WORDS[this.type] ?? WORDS.internal_error)[0];
  }

  get advice() {
    if (OUR_KEY.includes(this.code)) return "The model’s server does not accept the relay’s key, or its quota is used up. The operator of the relay has to correct that.";
    return (WORDS[this.type] ?? WORDS.internal_error)[1];
  }

  /** For a report of it. */
  get fine() {
    const words = [this.detail.charAt(0).toUpperCase() + this.detail.slice(1), this.code && `code ${this.code}`, this.status && `status ${this.status}`];
    return words.filter(Boolean).join(" · ");
  }
}
