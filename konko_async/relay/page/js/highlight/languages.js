// The languages that are shown in colours: which words and marks each of them has.

import { Language } from "./tokens.js";

const WORD = String.raw`[\p{L}_$][\p{L}\p{N}_$]*`;
const NUMBER = String.raw`(?:\.\d|\d)[\w.]*`;
const SPACE = String.raw`\s+`;
const escape = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
// A text in quotes; one that is not closed ends with its line.
const quoted = (quote) => `${quote}(?:[^${quote}\\\\]|\\\\[^])*(?:${quote}|\\\\?$)`;
// A character in quotes, where a single quote means other things, too.
const CHARACTER = String.raw`'(?:[^'\\]|\\[^]\w{0,8})'`;

/** A mode for what goes on over lines, up to `end`. */
function until(kind, end, { escapes = false } = {}) {
  const last = escape(end);
  // What does not begin the end: all but its first character, or that one alone.
  const [first] = end;
  const other = escapes ? `[^${escape(first)}\\\\]+|\\\\[^]` : `[^${escape(first)}]+`;
  return [[kind, last, null], [kind, other], [kind, escape(first)]];
}

/** A language like most: comments, texts in quotes, numbers, words. */
function plain({ line = [], block = [], quotes = `"'`, long = [], words, meta = [], fold = false, capitals = null, word = WORD, number = NUMBER }) {
  const first = [[null, SPACE]];
  const modes = { first };
  block.forEach(([begin, end], place) => {
    first.push(["comment", escape(begin), `block${place}`]);
    modes[`block${place}`] = until("comment", end);
  });
  long.forEach(([begin, end, options], place) => {
    first.push(["text", escape(begin), `long${place}`]);
    modes[`long${place}`] = until("text", end, options ?? { escapes: true });
  });
  for (const mark of line) first.push(["comment", `${mark}.*`]);
  for (const [kind, pattern] of meta) first.push([kind, pattern]);
  for (const quote of quotes) first.push(["text", quote === "'1" ? CHARACTER : quoted(quote)]);
  first.push(["number", number], ["word", word]);
  return new Language({ modes, words, fold, capitals });
}

const C_COMMENTS = { line: ["//"], block: [["/*", "*/"]] };
const HASH = String.raw`(?<![^\s;(])#`; // not in a word, where it is none in a shell
const AT = ["meta", String.raw`@[\w.]+`];
const VALUES = "true false null";

const script = (more = "") => plain({
  ...C_COMMENTS,
  long: [["`", "`"]],
  words: {
    keyword: `async await break case catch class const continue debugger default delete do else export extends finally for from function get if import in instanceof let new of return set static super switch this throw try typeof var void while with yield${more}`,
    value: `${VALUES} undefined NaN Infinity`,
  },
  meta: [AT],
  capitals: "type",
});

const TYPES = " abstract any as asserts boolean declare enum implements infer interface is keyof namespace never number object override private protected public readonly satisfies string symbol type unique unknown";
const C_WORDS = "auto break case const continue default do else enum extern for goto if inline register restrict return sizeof static struct switch typedef union volatile while";
const C_TYPES = "bool char double float int long short signed size_t ssize_t uint8_t uint16_t uint32_t uint64_t int8_t int16_t int32_t int64_t unsigned void wchar_t";
const PREPROCESSOR = ["meta", String.raw`(?<=^\s*)#\s*[a-z]+`];

const python = plain({
  line: ["#"],
  long: [['"""', '"""'], ["'''", "'''"]],
  words: {
    keyword: "and as assert async await break case class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return try type while with yield",
    value: "True False None self cls",
    type: "bool bytes dict float frozenset int list object set str tuple",
  },
  meta: [["meta", String.raw`(?<=^\s*)@[\w.]+`]],
});

const shell = plain({
  line: [HASH],
  words: {
    keyword: "case do done elif else esac export fi for function if in local readonly return select set source then unset until while",
    call: "apt apt-get awk cat cd chmod chown cp curl docker echo exit find git grep kill ls make mkdir mv npm pip pip3 printf python python3 rm sed ssh sudo tar test touch uv wget xargs",
  },
  meta: [["value", String.raw`\$(?:\w+|\{[^}]{0,100}\}?|[^])`], ["meta", String.raw`(?<=\s)--?\w[\w-]*`]],
  word: String.raw`[\p{L}_][\p{L}\p{N}_-]*`,
});

const markup = new Language({
  modes: {
    text: [
      ["comment", "<!--", "comment"],
      ["keyword", String.raw`<[/?!]?[\p{L}][\p{L}\p{N}:._-]*`, "tag"],
      ["value", String.raw`&#?\w{1,32};`],
      [null, "[^<&]+"],
    ],
    tag: [["keyword", "[/?]?>", null], ["text", quoted('"')], ["text", quoted("'")], ["meta", String.raw`[\p{L}_:@.][\p{L}\p{N}:._-]*`], [null, SPACE]],
    comment: until("comment", "-->"),
  },
});

const styles = plain({
  ...C_COMMENTS,
  line: [String.raw`(?<![^\s;{}])//`],
  words: {},
  meta: [
    ["keyword", String.raw`@[\w-]+`], ["value", String.raw`--[\w-]+|\$[\w-]+`], ["number", String.raw`#[0-9a-fA-F]{3,8}(?![\w-])`],
    ["meta", String.raw`[.#][\p{L}_-][\p{L}\p{N}_-]*|::?[a-z][a-z-]*(?=[\s,{(:.>+~[])`], ["type", String.raw`(?<=^\s+|[{;]\s*)[a-z-]+(?=:)`],
  ],
  word: String.raw`[\p{L}_][\p{L}\p{N}_-]*`,
  number: String.raw`(?:\.\d|\d)[\w.%]*`,
});

const json = plain({
  ...C_COMMENTS,
  quotes: "",
  words: { value: VALUES },
  meta: [["type", String.raw`"(?:[^"\\]|\\[^])*"(?=:)`], ["text", quoted('"')], ["number", String.raw`-?\d[\w.+-]*`]],
});

const yaml = plain({
  line: [HASH],
  words: { value: `${VALUES} yes no on off ~` },
  meta: [
    ["type", String.raw`(?<=^\s*(?:- +)?)[\p{L}_][\p{L}\p{N}_./-]*(?=:(?:\s|$))`],
    ["meta", String.raw`(?<=^|\s)[&*!][\w!-]+|^---$|^\.\.\.$`],
  ],
  word: String.raw`[\p{L}_~][\p{L}\p{N}_./-]*`,
});

const toml = plain({
  line: ["#", String.raw`(?<=^\s*);`],
  long: [['"""', '"""'], ["'''", "'''", {}]],
  words: { value: "true false inf nan" },
  meta: [["keyword", String.raw`(?<=^\s*)\[\[?[^\]]*\]?\]?`], ["type", String.raw`(?<=^\s*)[\w.-]+(?=\s?[=:])`]],
  word: String.raw`[\p{L}_][\p{L}\p{N}_-]*`,
});

const sql = plain({
  line: ["--"],
  block: [["/*", "*/"]],
  quotes: `'"\``,
  fold: true,
  words: {
    keyword: "add all alter and any as asc begin between by case check column commit constraint create cross database default delete desc distinct drop else end except exists explain foreign from full grant group having if in index inner insert intersect into is join key left like limit natural not offset on or order outer over partition primary procedure references replace returning revoke right rollback row rows select set table then to transaction trigger truncate union unique update using values view when where window with",
    type: "bigint bool boolean char date datetime decimal double float int integer interval json jsonb numeric real serial smallint text time timestamp uuid varchar",
    value: VALUES,
  },
});

const c = plain({ ...C_COMMENTS, words: { keyword: C_WORDS, type: C_TYPES, value: "NULL true false" }, meta: [PREPROCESSOR] });

const cpp = plain({
  ...C_COMMENTS,
  words: {
    keyword: `${C_WORDS} catch class co_await co_return co_yield concept consteval constexpr constinit decltype delete explicit export final friend import module mutable namespace new noexcept operator override private protected public requires static_assert template this throw try typename using virtual`,
    type: `${C_TYPES} string vector map set pair optional unique_ptr shared_ptr`,
    value: "nullptr NULL true false",
  },
  meta: [PREPROCESSOR],
});

const java = plain({
  ...C_COMMENTS,
  long: [['"""', '"""']],
  words: {
    keyword: "abstract assert break case catch class continue default do else enum extends final finally for if implements import instanceof interface native new package permits private protected public record return sealed static strictfp super switch synchronized this throw throws transient try var void volatile while yield",
    type: "boolean byte char double float int long short",
    value: VALUES,
  },
  meta: [AT],
  capitals: "type",
});

const csharp = plain({
  ...C_COMMENTS,
  long: [['"""', '"""', {}], ['@"', '"', {}]],
  words: {
    keyword: "abstract as async await base break case catch checked class const continue default delegate do else enum event explicit extern finally fixed for foreach get goto if implicit in init interface internal is lock namespace new operator out override params partial private protected public readonly record ref required return sealed set sizeof stackalloc static struct switch this throw try typeof unchecked unsafe using var virtual void volatile when where while with yield",
    type: "bool byte char decimal double dynamic float int long object sbyte short string uint ulong ushort",
    value: VALUES,
  },
  meta: [PREPROCESSOR],
  capitals: "type",
});

const kotlin = plain({
  ...C_COMMENTS,
  long: [['"""', '"""', {}]],
  words: {
    keyword: "abstract actual annotation as break by catch class companion const constructor continue crossinline data do else enum expect external final finally for fun get if import in infix init inline inner interface internal is lateinit noinline object open operator out override package private protected public reified return sealed set super suspend tailrec this throw try typealias val var vararg when where while",
    value: VALUES,
  },
  meta: [AT],
  capitals: "type",
});

const swift = plain({
  ...C_COMMENTS,
  quotes: '"',
  long: [['"""', '"""']],
  words: {
    keyword: "actor as associatedtype async await break case catch class continue default defer deinit do else enum extension fallthrough fileprivate final for func get guard if import in indirect init inout internal is lazy let mutating nonmutating open operator override private protocol public repeat required rethrows return self set some static struct subscript super switch throw throws try typealias unowned var weak where while",
    value: "true false nil",
  },
  meta: [["meta", String.raw`[@#]\w+`]],
  capitals: "type",
});

const go = plain({
  ...C_COMMENTS,
  long: [["`", "`", {}]],
  words: {
    keyword: "break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select struct switch type var",
    type: "any bool byte comparable complex64 complex128 error float32 float64 int int8 int16 int32 int64 rune string uint uint8 uint16 uint32 uint64 uintptr",
    value: "true false nil iota",
  },
});

const rust = plain({
  ...C_COMMENTS,
  quotes: ['"', "'1"],
  words: {
    keyword: "as async await break const continue crate dyn else enum extern fn for if impl in let loop macro match mod move mut pub ref return self static struct super trait type union unsafe use where while",
    type: "bool char f32 f64 i8 i16 i32 i64 i128 isize str u8 u16 u32 u64 u128 usize Self",
    value: "true false None Some Ok Err",
  },
  meta: [["meta", String.raw`#!?\[[^\]]*\]?`], ["meta", String.raw`'[a-z_]\w*(?!')`], ["call", String.raw`[a-z_]\w*!(?!=)`]],
  capitals: "type",
});

const ruby = plain({
  line: ["#"],
  words: {
    keyword: "alias and attr_accessor attr_reader attr_writer begin break case class def defined do else elsif end ensure extend for if in include module next not or private protected public raise redo require require_relative rescue retry return self super then undef unless until when while yield",
    value: "true false nil",
  },
  meta: [["value", String.raw`@@?\w+|\$\w+`], ["text", String.raw`(?<![:\w]):[a-z_]\w*`]],
  capitals: "type",
});

const php = plain({
  line: ["//", String.raw`#(?!\[)`],
  block: [["/*", "*/"]],
  fold: true,
  words: {
    keyword: "abstract and array as break callable case catch class clone const continue declare default do echo else elseif empty enum extends final finally fn for foreach function global if implements include include_once instanceof interface isset list match namespace new or print private protected public readonly require require_once return static switch throw trait try unset use var while yield",
    type: "bool float int iterable mixed never object string void",
    value: VALUES,
  },
  meta: [["value", String.raw`\$\w+`], ["meta", String.raw`<\?(?:php|=)?|\?>`]],
});

const r = plain({
  line: ["#"],
  words: { keyword: "break else for function if in library next repeat require return while", value: "TRUE FALSE NULL NA NaN Inf" },
  meta: [["keyword", "<-|->|\\|>|%[^%\\s]*%"]],
  word: String.raw`[\p{L}.][\p{L}\p{N}._]*`,
});

const julia = plain({
  line: ["#"],
  block: [["#=", "=#"]],
  long: [['"""', '"""']],
  quotes: ['"', "'1"],
  words: {
    keyword: "abstract baremodule begin break catch const continue do else elseif end export finally for function global if import in isa let local macro module mutable primitive quote return struct try type using where while",
    value: "true false nothing missing",
  },
  meta: [["meta", String.raw`@\w+`]],
  capitals: "type",
});

const lua = plain({
  line: ["--"],
  block: [["--[[", "]]"]],
  long: [["[[", "]]", {}]],
  words: { keyword: "and break do else elseif end for function goto if in local not or repeat return then until while", value: "true false nil self" },
});

const perl = plain({
  line: ["#"],
  words: { keyword: "and cmp die do else elsif eq for foreach ge gt if last le local lt my ne next no not or our package print redo require return say sub unless until use while" },
  meta: [["value", String.raw`[$@%&][\w:]+`]],
});

const haskell = plain({
  line: ["--"],
  block: [["{-", "-}"]],
  quotes: ['"', "'1"],
  words: { keyword: "case class data default deriving do else family forall foreign if import in infix infixl infixr instance let module newtype of qualified then type where" },
  capitals: "type",
  word: String.raw`[\p{L}_][\p{L}\p{N}_']*`,
});

const scala = plain({
  ...C_COMMENTS,
  quotes: ['"', "'1"],
  long: [['"""', '"""', {}]],
  words: {
    keyword: "abstract case catch class def do else enum export extends extension final finally for given if implicit import inline lazy match new object open override package private protected return sealed super then this throw trait try type using val var while with yield",
    value: VALUES,
  },
  meta: [AT],
  capitals: "type",
});

const dart = plain({
  ...C_COMMENTS,
  long: [["'''", "'''"], ['"""', '"""']],
  words: {
    keyword: "abstract as assert async await base break case catch class const continue covariant default deferred do else enum export extends extension external factory final finally for function get hide if implements import in interface is late library mixin new on operator part required rethrow return sealed set show static super switch sync this throw try typedef var when while with yield",
    type: "bool double dynamic int num void",
    value: VALUES,
  },
  meta: [AT],
  capitals: "type",
});

const elixir = plain({
  line: ["#"],
  long: [['"""', '"""']],
  words: {
    keyword: "after alias and case catch cond def defguard defimpl defmacro defmodule defp defprotocol defstruct do else end fn for if import in not or quote raise receive require rescue reraise try unless unquote use when with",
    value: "true false nil",
  },
  meta: [["meta", String.raw`@\w+`], ["text", String.raw`(?<![:\w]):[a-z_]\w*`]],
  capitals: "type",
});

const docker = plain({
  line: [String.raw`(?<=^\s*)#`],
  words: { keyword: "FROM RUN CMD LABEL MAINTAINER EXPOSE ENV ADD COPY ENTRYPOINT VOLUME USER WORKDIR ARG ONBUILD STOPSIGNAL HEALTHCHECK SHELL AS" },
  meta: [["value", String.raw`\$(?:\w+|\{[^}]{0,100}\}?)`], ["meta", String.raw`(?<=\s)--?\w[\w-]*`]],
});

const make = plain({
  line: ["#"],
  words: { keyword: "define else endef endif export ifdef ifeq ifndef ifneq include override" },
  meta: [["value", String.raw`\$(?:\([^)]{0,100}\)?|\{[^}]{0,100}\}?|[^])`], ["type", String.raw`(?<=^)[\w./%-]+(?=:(?!=))`]],
  word: String.raw`[\p{L}_][\p{L}\p{N}_-]*`,
});

const latex = plain({
  line: [String.raw`(?<!\\)%`],
  quotes: "",
  words: {},
  meta: [["keyword", String.raw`\\(?:[a-zA-Z@]+\*?|[^])`], ["value", String.raw`\$\$?`]],
});

const diff = new Language({
  modes: {
    first: [
      ["meta", "(?<=^)(?:diff |index |---|\\+\\+\\+|@@).*"], ["added", "(?<=^)\\+.*"], ["removed", "(?<=^)-.*"], [null, ".+"],
    ],
  },
});

const markdown = new Language({
  modes: {
    first: [
      ["text", "(?<=^)(?:```|~~~).*", "code"], ["keyword", "(?<=^)#{1,6} .*"], ["comment", "(?<=^)>.*"], ["meta", String.raw`(?<=^\s*)(?:[-+*]|\d{1,9}[.)])(?=\s)`],
      ["text", "`[^`]+`"], ["value", String.raw`\*\*[^*]+\*\*`], [null, "[^`*]+"],
    ],
    code: [["text", "(?<=^)(?:```|~~~)", null], ["text", ".+"]],
  },
});

const javascript = script();
const typescript = script(TYPES);

/** Languages by the names that models give them. */
const NAMES = new Map(Object.entries({
  "bash sh shell zsh console shell-session sh-session terminal": shell,
  "c h": c,
  "c++ cpp cc cxx hpp objc objective-c": cpp,
  "c# cs csharp": csharp,
  "css scss sass less": styles,
  dart,
  "diff patch": diff,
  "docker dockerfile containerfile": docker,
  "elixir ex exs": elixir,
  "go golang": go,
  "haskell hs": haskell,
  "html xml svg xhtml vue svelte": markup,
  "ini cfg conf properties toml": toml,
  java,
  "javascript js jsx mjs cjs node": javascript,
  "json json5 jsonc jsonl ndjson": json,
  "julia jl": julia,
  "kotlin kt kts groovy": kotlin,
  "latex tex": latex,
  lua,
  "make makefile mk": make,
  "markdown md": markdown,
  "perl pl": perl,
  php,
  "python py python3 py3 pycon ipython": python,
  r,
  "ruby rb": ruby,
  "rust rs": rust,
  scala,
  "sql mysql postgresql postgres psql sqlite plsql tsql": sql,
  swift,
  "typescript ts tsx mts": typescript,
  "yaml yml": yaml,
}).flatMap(([names, language]) => names.split(" ").map((name) => [name, language])));

/** The language of a name as it stands behind a fence, or null. */
export function languageOf(name) {
  const plainName = name.toLowerCase().replace(/^(?:language-|\{?\.)/, "");
  return NAMES.get(plainName) ?? NAMES.get(/^[\w+#-]*/.exec(plainName)[0]) ?? null;
}
