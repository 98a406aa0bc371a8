// Characters that are written by their name or number.

const NAMES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00A0", copy: "©", reg: "®", trade: "™", deg: "°", hellip: "…", mdash: "—", ndash: "–",
  lsquo: "‘", rsquo: "’", ldquo: "“", rdquo: "”", bull: "•", middot: "·", times: "×", larr: "←", rarr: "→", le: "≤", ge: "≥", ne: "≠", euro: "€",
};

/** What a match of (decimal)|(hexadecimal)|(name) stands for; null for a name that is not known. */
export function decodeEntity(found) {
  if (found[3]) return Object.hasOwn(NAMES, found[3]) ? NAMES[found[3]] : null;
  const code = found[1] ? Number(found[1]) : Number.parseInt(found[2], 16);
  const valid = code > 0 && code <= 0x10FFFF && !(code >= 0xD800 && code <= 0xDFFF);
  return valid ? String.fromCodePoint(code) : "\uFFFD";
}
