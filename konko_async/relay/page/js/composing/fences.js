// Code that was pasted without fences: it is shown as the code that it is. What is sent stays as it was.

const LEAST = 3; // lines of code in a row
const CODE = new RegExp([
  String.raw`[;{}]\s*$`, // what ends a statement or a block
  String.raw`^\s*(?:def|class|async def|function|func|fn|const|let|var|import|from|return|public|private|protected|static|using|namespace|package|struct|enum|impl)\s+[\w*{"'<.]`,
  String.raw`^\s*(?:if|for|while|else|elif|try|except|with|switch|match)\b.*[:{]\s*$`,
  String.raw`^\s*#include\s*[<"]`,
  String.raw`^\s*@\w+(?:\(.*\))?\s*$`,
  String.raw`^\s*[\w.[\]]+(?:, ?[\w.[\]]+)*\s*(?::\s*\w+\s*)?[-+*/|&]?=\s*\S`,
  String.raw`^\s*[\w.]+\(.*\)[;,]?\s*$`,
  String.raw`^\s{2,}(?:return|raise|throw|yield|pass|break|continue)\b`,
].join("|"));
const LIST = /^\s*(?:[-*+]|\d{1,9}[.)])\s/;
const LONGEST = 500; // characters of a line that is looked at
const MOST = 5000; // lines

const isBlank = (line) => !line.trim();
const isCode = (line) => line.length <= LONGEST && !LIST.test(line) && CODE.test(line);
/** What may stand between lines of code: what is indented, is a comment, or closes something. */
const mayBeCode = (line) => line.length <= LONGEST && !LIST.test(line) && (/^(?:\s{2,}\S|\t)/.test(line) || /^\s*(?:#(?!#* )|\/\/|\/\*|\*\/|--|[)\]}])/.test(line) || /^\s*#\s/.test(line));

/** The text with fences around what looks like code, where there are none. */
export function fenced(text) {
  const lines = text.split("\n");
  if (lines.length < LEAST || lines.length > MOST || /^\s*(?:```|~~~)/m.test(text)) return text;
  const out = [];
  for (let at = 0; at < lines.length;) {
    const end = isCode(lines[at]) ? endOf(lines, at) : at;
    if (end - at >= LEAST) out.push("", "```", ...lines.slice(at, end), "```", "");
    else out.push(...lines.slice(at, Math.max(end, at + 1)));
    at = Math.max(end, at + 1);
  }
  return out.join("\n");
}

/** Where code that begins at a line ends; most of its lines must look like code by themselves. */
function endOf(lines, start) {
  let [end, sure, all] = [start, 0, 0];
  for (let at = start; at < lines.length; at += 1) {
    if (isBlank(lines[at])) continue;
    if (isCode(lines[at])) sure += 1;
    else if (!mayBeCode(lines[at])) break;
    all += 1;
    end = at + 1;
  }
  return sure * 2 >= all ? end : start;
}
