"use strict";
// What is in the pictures of a folder, and, where `mfdn review` serves this page, corrections that it saves.
const PER_PAGE = 60, SURE = 0.5, UNKNOWN = 0.5, NUM_NAMES = 300, LEAST_SCORE = 0.01;
const element = (id) => document.getElementById(id);
const read = (id) => JSON.parse(element(id).textContent);
const facts = read("facts"), token = document.body.dataset.token;
const characters = new Set(facts.characters.map(key));
const canSave = token !== "";
let pictures = read("pictures").map((said, number) => ({ number, checked: false, ...said }));
let shown = [], page = 0, here = 0;

// The form that two spellings of one word share, as `mfdn tag` compares them.
function key(word) {
  return word.toLowerCase().replace(/[\s_]+/g, "_").replaceAll("\\(", "(").replaceAll("\\)", ")")
    .replace(/^(character|series|rating):/, "").replace(/(.):\d[\d.]*$/, "$1");
}

// As the captions of this folder are spelled.
function spell(name, isCharacter = characters.has(key(name))) {
  if (facts.spaces && name.length > 3) name = name.replaceAll("_", " ");
  if (facts.escape) name = name.replace(/\\?([()])/g, "\\$1");
  return facts.format === "hydrus" && isCharacter ? `character:${name}` : name;
}

const percent = (score) => (score > 0 && score < 0.01 ? "< 1 %" : `${Math.round(100 * score)} %`);
const isUnknown = (picture) => picture.unknown > UNKNOWN && !namesOf(picture).length;
const namesOf = (picture) => picture.words.filter((word) => characters.has(key(word)));
const label = (picture) => namesOf(picture)[0] ?? "";

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

function make(kind, content = "", properties = {}) {
  return Object.assign(document.createElement(kind), { textContent: content }, properties);
}

// A name that may be broken behind its underscores; it is copied as it is.
function breakable(name) {
  const made = make("span");
  name.split(/(?<=_)/).forEach((part) => made.append(part, document.createElement("wbr")));
  return made;
}

function button(content, title, action) {
  const made = make("button", content, { type: "button", title, ariaLabel: title, disabled: !canSave });
  made.addEventListener("click", action);
  return made;
}

const WHICH = {
  open: (picture) => !picture.checked,
  uncertain: (picture) => picture.sure < SURE,
  unknown: isUnknown,
  untagged: (picture) => !picture.words.length,
  checked: (picture) => picture.checked,
};
const ORDER = {
  sure: (a, b) => (a.sure ?? 2) - (b.sure ?? 2),  // what has no score is last
  character: (a, b) => label(a).localeCompare(label(b)) || a.number - b.number,
  file: (a, b) => a.number - b.number,
};

// Chooses and orders the pictures anew. What is checked meanwhile stays where it is until then.
function choose() {
  const wanted = key(element("filter").value.trim());
  const which = WHICH[element("which").value] ?? (() => true);
  const matches = (picture) =>
    picture.words.some((word) => key(word).includes(wanted)) || picture.file.toLowerCase().includes(wanted)
    || (picture.characters ?? []).some(([name]) => key(name).includes(wanted));
  shown = pictures.filter((picture) => which(picture) && (!wanted || matches(picture))).sort(ORDER[element("order").value]);
  page = here = 0;
  draw();
}

function address(picture, kind) {
  if (canSave) return `/${kind}/${picture.number}?token=${token}`;
  try {
    return picture.file.split("/").map(encodeURIComponent).join("/");
  } catch {
    return ""; // a name that is no text
  }
}

function draw() {
  const part = shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
  element("pictures-shown").replaceChildren(...part.map(card));
  const left = pictures.filter((picture) => !picture.checked).length;
  element("count").textContent = `${shown.length.toLocaleString()} of ${pictures.length.toLocaleString()}` +
    (canSave ? `; ${left.toLocaleString()} to check` : "");
  const last = Math.max(0, Math.ceil(shown.length / PER_PAGE) - 1);
  const turn = (words, to) => Object.assign(button(words, words, () => turnTo(to)), { disabled: to < 0 || to > last });
  element("pager").replaceChildren(...(last ? [turn("Earlier", page - 1), make("span", `${page + 1} of ${last + 1}`), turn("More", page + 1)] : []));
  mark();
}

function turnTo(number) {
  page = number;
  here = 0;
  draw();
  scrollTo(0, 0);
}

function mark() {
  [...element("pictures-shown").children].forEach((item, i) => item.classList.toggle("here", canSave && i === here));
}

function card(picture) {
  const item = make("li");
  item.dataset.number = picture.number;
  item.classList.toggle("checked", picture.checked);
  const link = make("a", "", { className: "picture", href: address(picture, "picture"), target: "_blank" });
  const none = () => make("span", "cannot be shown", { className: "none" });
  if (/\.(mp4|m4v|mov|webm|mkv|avi|tiff?)$/i.test(picture.file)) link.append(make("span", "film, or no picture of browsers", { className: "none" }));
  else {
    const image = make("img", "", { loading: "lazy", alt: picture.file, src: address(picture, "thumbnail") });
    image.addEventListener("error", () => image.replaceWith(none()));
    link.append(image);
  }
  const file = make("p", `${picture.file} `, { className: "file" });
  const doubt = picture.unknown === undefined ? "" : `unknown ${percent(picture.unknown)}`;
  if (isUnknown(picture)) file.append(make("b", doubt));
  else if (picture.sure < SURE) file.append(make("b", `uncertain (${doubt})`));
  if (picture.problem) file.append(make("b", picture.problem));
  const choices = make("ul", "", { className: "choices" });
  const named = new Set(namesOf(picture).map(key));
  (picture.characters ?? []).slice(0, 5).forEach(([name, score], i) => {
    if (i > 1 && score < LEAST_SCORE && !named.has(key(name))) return;
    const chosen = button("", `${name} (key ${i + 1})`, () => setCharacter(picture, named.has(key(name)) ? null : name));
    chosen.append(breakable(name), make("small", percent(score)));
    chosen.style.setProperty("--score", `${100 * score}%`);
    chosen.ariaPressed = String(named.has(key(name)));
    const row = make("li");
    row.append(chosen);
    choices.append(row);
  });
  const words = make("ul", "", { className: "words" });
  words.append(...picture.words.map((word) => {
    const chip = make("li", "", { className: characters.has(key(word)) ? "who" : "" });
    chip.append(breakable(word));
    if (canSave) chip.append(button("×", `Strike ${word}`, () => save(picture, (words) => words.filter((other) => other !== word))));
    return chip;
  }));
  item.append(link, file, choices, words);
  if (canSave) item.append(tools(picture));
  item.addEventListener("pointerdown", () => { here = [...item.parentNode.children].indexOf(item); mark(); });
  return item;
}

function tools(picture) {
  const row = make("div", "", { className: "tools" });
  const input = make("input", "", { placeholder: "add a tag or a character", autocomplete: "off", ariaLabel: `Add to ${picture.file}` });
  input.setAttribute("list", "names");
  input.addEventListener("input", () => suggest(input.value));
  input.addEventListener("keydown", async (event) => {
    if (event.key === "Escape") input.blur();
    if (event.key !== "Enter" || !input.value.trim()) return;
    event.preventDefault();
    event.stopPropagation();
    const typed = input.value.trim();
    input.value = "";
    await save(picture, (words) => (words.some((word) => key(word) === key(typed)) ? words : [...words, spell(typed)]));
    cardOf(picture)?.querySelector("input").focus();
  });
  const title = picture.checked ? "Checked; press to open it again" : "Right as it is (Enter)";
  row.append(input, button(picture.checked ? "✓ checked" : "Right", title, () => check(picture, !picture.checked)));
  return row;
}

const cardOf = (picture) => element("pictures-shown").querySelector(`[data-number="${picture.number}"]`);

// Names that begin so, then names that hold it: a list of all 25,000 would be slow to open.
function suggest(text) {
  const wanted = key(text.trim());
  const all = [...facts.characters, ...facts.tags];
  const found = wanted ? [...all.filter((name) => name.startsWith(wanted)), ...all.filter((name) => name.indexOf(wanted) > 0)] : [];
  element("names").replaceChildren(...found.slice(0, NUM_NAMES).map((name) => make("option", "", { value: name })));
}

// ---------------------------------------------------------------- what is saved
async function ask(path, content) {
  const answer = await fetch(path, {
    method: content === undefined ? "GET" : "POST",
    headers: { "X-Token": token, "Content-Type": "application/json" },
    body: content === undefined ? undefined : JSON.stringify(content),
  }).catch(() => { throw new Error("The server does not answer: is `mfdn review` still running?"); });
  const said = await answer.json();
  if (!answer.ok && said.words === undefined) throw new Error(said.error);
  return said;
}

// One after the other: who presses keys faster than a file is written loses nothing.
let last = Promise.resolve();
function change(path, content) {
  last = last.then(async () => {
    try {
      take(await ask(path, content()));
    } catch (error) {
      say(error.message, true);
    }
  });
  return last;
}

// What stands in the file now is what is shown.
function take(said) {
  const picture = pictures[said.number];
  if (picture === undefined) return say(said.error ?? "Nothing to undo.");
  const focused = document.activeElement?.closest?.("li[data-number]") === cardOf(picture);
  Object.assign(picture, { words: said.words, checked: said.checked });
  say(said.error ?? said.said, Boolean(said.error));
  const old = cardOf(picture);
  if (old) {
    const fresh = card(picture);
    old.replaceWith(fresh);
    mark();
    if (focused) document.activeElement.blur();
  }
  const left = pictures.filter((other) => !other.checked).length;
  element("count").textContent = `${shown.length.toLocaleString()} of ${pictures.length.toLocaleString()}; ${left.toLocaleString()} to check`;
}

// `edit` makes new words of those that stand there when it is its turn.
const save = (picture, edit) =>
  change("/save", () => ({ number: picture.number, words: edit(picture.words), seen: picture.words }));
const check = (picture, checked) => change("/check", () => ({ number: picture.number, checked }));
const undo = () => change("/undo", () => ({}));

function setCharacter(picture, name) {
  return save(picture, (words) => {
    const others = words.filter((word) => !characters.has(key(word)));
    return name === null ? others : [spell(name, true), ...others];
  });
}

// ---------------------------------------------------------------- keys
function move(step) {
  const items = element("pictures-shown").children;
  if (here + step >= items.length && (page + 1) * PER_PAGE < shown.length) return turnTo(page + 1);
  here = Math.max(0, Math.min(items.length - 1, here + step));
  mark();
  items[here]?.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape" && typing) return event.target.blur();
  if (typing || !canSave && event.key !== "/") return;
  if (event.target.tagName === "BUTTON" && [" ", "Enter"].includes(event.key)) return;
  const picture = shown[page * PER_PAGE + here];
  const actions = {
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), j: () => move(1), k: () => move(-1), u: undo,
    "/": () => element("filter").focus(),
    t: () => cardOf(picture).querySelector("input").focus(),
    x: () => document.activeElement.closest(".words li")?.querySelector("button").click(),
    0: () => setCharacter(picture, null),
    Enter: () => { if (!picture.checked) check(picture, true); move(1); },
  };
  for (let i = 1; i <= 5; i++) actions[i] = () => picture.characters?.[i - 1] && setCharacter(picture, picture.characters[i - 1][0]);
  if (!actions[event.key] || (!picture && !["/", "u"].includes(event.key))) return;
  event.preventDefault();
  actions[event.key]();
});

element("filter").addEventListener("input", () => { suggest(element("filter").value); choose(); });
for (const id of ["which", "order"]) element(id).addEventListener("change", choose);

async function start() {
  element("undo").hidden = !canSave;
  element("undo").addEventListener("click", undo);
  element("mode").textContent = canSave
    ? "What you correct is saved at once, in the captions beside the pictures."
    : "To look at. To correct it, run: mfdn review and the name of this folder.";
  if (canSave) {
    try {
      const known = new Map(pictures.map((picture) => [picture.file, picture]));
      pictures = (await ask("/pictures")).map((now) => ({ ...(known.get(now.file) ?? {}), ...now }));
    } catch (error) {
      say(error.message, true);
    }
  } else {
    element("which").value = "";
    element("which").querySelectorAll("[value=open], [value=checked]").forEach((option) => option.remove());
  }
  choose();
}
start();
