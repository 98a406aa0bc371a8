// What the relay tells of itself: its limits, its prices, and what its models are good for.

const MIB = 1024 * 1024;

let told = {};

export function takeRelay(found) {
  told = found && typeof found === "object" ? found : {};
}

/** Whether calls may have a parameter; a relay that tells nothing takes all that the page knows. */
export const takes = (param) => told.params?.includes(param) ?? true;

/** Whether messages may have parts of a type. */
export const takesPart = (type) => told.parts?.includes(type) ?? true;

export const takesRole = (role) => told.roles?.includes(role) ?? true;

/** Bytes that the body of a call may have. */
export const maxBody = () => told.max_body ?? MIB;

/** The relay's cap of tokens, or null. */
export const maxTokens = () => told.max_tokens ?? null;

/** A line about the models, or "". */
export const about = () => told.about ?? "";

/** Questions to begin with, [kind, question] each; null: the relay has none of its own. */
export const starters = () => told.starters ?? null;

/** What an answer cost, as it is shown: by the price of its model and the server's count of tokens. "" if that is not known. */
export function costOf(model, usage) {
  const price = told.prices?.[model] ?? told.prices?.["*"];
  if (!price || !usage || !Number.isFinite(usage.prompt_tokens) || !Number.isFinite(usage.completion_tokens)) return "";
  if (price.prompt === null || price.completion === null) return "";
  const cached = Math.min(usage.prompt_tokens_details?.cached_tokens ?? 0, usage.prompt_tokens);
  const cost = (usage.prompt_tokens - cached) * price.prompt + cached * (price.cached ?? price.prompt) + usage.completion_tokens * price.completion;
  return money(cost, price.currency);
}

/** An amount with two digits that count, and no more than a millionth. */
export function money(amount, currency) {
  const digits = amount > 0 ? Math.min(Math.max(2, 1 - Math.floor(Math.log10(amount))), 6) : 2;
  const style = currency ? { style: "currency", currency } : {};
  try {
    return new Intl.NumberFormat("en", { ...style, minimumFractionDigits: 2, maximumFractionDigits: digits }).format(amount);
  } catch {
    return `${amount.toFixed(digits)} ${currency}`; // no currency that a browser knows
  }
}
