// Everything happens here: the picture becomes numbers, the graphs run, the page shows what they say.
import * as ort from "./onnxruntime/ort.wasm.min.mjs";
import { Gallery, isName, keep, kept } from "./gallery.js";
import { toPixels } from "./picture.js";
import { button, combobox, rove, step, text } from "./widgets.js";

ort.env.wasm.numThreads = 1; // more need headers that a static page cannot set
ort.env.wasm.wasmPaths = new URL("./onnxruntime/", import.meta.url).href;

const MAX_FILE_BYTES = 64 * 2 ** 20;
const NUM_CHARACTERS = 5;
const UNKNOWN_THRESHOLD = 0.5;
const THUMBNAIL = 64;
const LOOKING = "Looking…";
const NOT_LOADED =
  "The model could not be loaded. Reload the page, or serve the folder over http: a file:// page cannot.";
const element = (id) => document.getElementById(id);

const NUM_NAMES = 300; // of the list of characters that are shown at once: a filter finds the others
const page = { pixels: null, hints: [], struck: new Set(), characters: [], shown: [], run: 0, given: 0, asked: null,
  threshold: null, isNew: false };
const lesson = []; // pictures that will teach: { file, address, z, isOdd }
let gallery; // characters that were taught; none where the model has no statistics
let model; // page.json: names, sizes, thresholds
const sessions = {}; // file → promise of a session; the second graph loads when a hint first needs it

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

function session(file) {
  sessions[file] ??= ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  return sessions[file];
}

async function start() {
  try {
    const answer = await fetch("page.json");
    if (!answer.ok) throw new Error(`page.json: ${answer.status}`);
    model = await answer.json();
    document.title = model.title;
    element("title").textContent = model.title;
    const count = (list) => list.length.toLocaleString("en");
    element("names-title").textContent = `All ${count(model.characters)} characters`;
    showThreshold();
    showSamples();
    element("known").textContent = `It knows ${count(model.characters)} characters and ${count(model.tags)} tags.`;
    element("hints-part").hidden = !model.graph_with_tags;
    model.ids = new Map(model.tags.map((tag, i) => [tag, i + model.num_special_tokens]));
    await session(model.graph);
    if (model.axes) await openGallery();
    if (!page.given) say("Ready."); // else it stands there what became of the picture
  } catch (error) {
    console.error(error);
    say(NOT_LOADED, true);
  }
  if (!page.pixels) element("results").ariaBusy = "false";
}

// What was there is of another picture: its hints must not steer this one, its names not stand beside it.
function showNothing() {
  page.struck.clear();
  page.characters = [];
  showTags(null);
  element("characters").replaceChildren();
  element("unknown").hidden = true;
  showRating();
}

// What the model sees of a file. Throws a sentence.
async function readPixels(file, name) {
  if (file.size > MAX_FILE_BYTES) throw `${name} is larger than 64 MB.`;
  let bitmap;
  try {
    // Upright, as EXIF says; colours as they are stored: Pillow, which training used, ignores colour profiles.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw `${name} is no picture that this browser can read.`;
  }
  if (!model) await starting;
  try {
    if (!model) throw NOT_LOADED;
    return toPixels(bitmap, model);
  } catch (error) {
    console.error(error);
    throw error === NOT_LOADED ? error : `${name} is too much for this browser: make it smaller.`;
  } finally {
    bitmap.close();
  }
}

async function takePicture(files) {
  const [file] = files ?? [];
  if (!file) return;
  if (files.length > 1) return say(`One picture at a time: these were ${files.length} files.`, true);
  const given = ++page.given; // a small picture is read before a large one that was given first
  const name = file.name || "What you gave";
  say(`Reading ${name}…`);
  let pixels;
  try {
    pixels = await readPixels(file, name);
  } catch (problem) {
    return given === page.given ? say(problem, true) : undefined;
  }
  if (given !== page.given) return;
  if (page.pixels && !element("keep").checked) page.hints = []; // hints that were there before any picture are for the first
  page.pixels = pixels;
  page.isNew = true;
  showHints();
  showNothing();
  const preview = element("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = `Your picture: ${file.name || "pasted"}`;
  preview.hidden = false;
  await preview.decode().catch(() => {}); // once it has its place the answer can be brought into view
  if (given !== page.given) return;
  element("invitation").textContent = "Another one: drop, paste, or";
  await update();
}

// Runs the graph that fits and shows what it says; of several runs at once only the last is shown.
async function update() {
  if (!page.pixels || !model) return;
  const run = ++page.run;
  say(LOOKING);
  element("results").ariaBusy = "true";
  element("copy").disabled = true; // what stands there is about to be replaced
  const started = performance.now();
  const feeds = { pixel_values: pixelTensor(page.pixels) };
  const withTags = page.hints.length > 0;
  if (withTags) Object.assign(feeds, encodeTags(page.hints));
  try {
    const graph = await session(withTags ? model.graph_with_tags : model.graph);
    const outputs = await queue(() => (run === page.run ? graph.run(feeds) : null));
    if (run !== page.run) return;
    if (!outputs.logits.data.every(Number.isFinite)) throw new Error("The scores are no numbers.");
    element("results").ariaBusy = "false";
    page.said = outputs; // to rank anew when a character is taught or forgotten
    showCharacters();
    showRating(outputs.rating_scores?.data);
    showTags(outputs.tag_scores?.data);
    bringIntoView();
    // What was said of another file meanwhile, that it is no picture, stays to be read.
    if (element("status").textContent === LOOKING) say(`Done in ${Math.round(performance.now() - started)} ms.`);
  } catch (error) {
    console.error(error);
    if (run !== page.run) return;
    element("results").ariaBusy = "false";
    showNothing();
    say("The model stopped with an error. Reload the page.", true);
  }
}

function pixelTensor(pixels) {
  return new ort.Tensor("float32", pixels, [1, 3, model.image_size, model.image_size]);
}

let running = Promise.resolve();
function queue(task) { // a session runs one thing at a time
  running = running.catch(() => {}).then(task);
  return running;
}

function encodeTags(tags) {
  const ids = [model.cls_token_id, ...tags.map((tag) => model.ids.get(tag)), model.sep_token_id];
  const row = (values, rest) =>
    new ort.Tensor("int64",
      BigInt64Array.from({ length: model.max_tag_tokens }, (_, i) => BigInt(values[i] ?? rest)),
      [1, model.max_tag_tokens]);
  return { input_ids: row(ids, model.pad_token_id), attention_mask: row(ids.map(() => 1), 0) };
}

function softmax(logits) {
  const highest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(logits, (value) => Math.exp(value - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
}

const sigmoid = (logits) => Array.from(logits, (value) => 1 / (1 + Math.exp(-value)));

const percent = (score) => (score < 0.01 ? "less than 1 %" : `${Math.round(100 * score)} %`);

function best(scores, number) {
  return Array.from(scores, (score, i) => [score, i]).sort((a, b) => b[0] - a[0]).slice(0, number);
}

// [score, name] of trained and taught characters in one ranking, best first, and how likely it is none of them.
function rank(outputs) {
  const isSigmoid = model.character_activation === "sigmoid";
  const scores = (isSigmoid ? sigmoid : softmax)(outputs.logits.data);
  const ranked = new Map(model.characters.map((name, i) => [name, scores[i]]));
  let unknown = null;
  if (gallery) {
    const trained = outputs.trained_log_odds.data[0];
    const taught = gallery.logOdds(outputs.picture_embedding.data);
    const whole = [trained, ...taught.values()].reduce((sum, odds) => sum + Math.exp(odds), 0);
    unknown = 1 / (1 + whole);
    if (taught.size) {
      if (!isSigmoid) ranked.forEach((score, name) => ranked.set(name, (score * Math.exp(trained)) / whole));
      taught.forEach((odds, name) => {
        const mine = isSigmoid ? sigmoid([odds])[0] : Math.exp(odds) / whole;
        const before = ranked.get(name) ?? 0; // a character that was trained, too, has one score
        ranked.set(name, isSigmoid ? Math.max(before, mine) : before + mine);
      });
    }
  }
  return [[...ranked].map(([name, score]) => [score, name]).sort((a, b) => b[0] - a[0]), unknown];
}

// Those that are copied, as `mfdn tag` writes them: one at most where the scores share one whole.
function showCharacters() {
  const [all, unknown] = rank(page.said);
  const ranked = all.slice(0, NUM_CHARACTERS);
  const isUnknown = unknown > UNKNOWN_THRESHOLD;
  page.isUnknown = isUnknown;
  const note = element("unknown");
  note.hidden = unknown === null;
  note.classList.toggle("answer", isUnknown);
  note.textContent = isUnknown
    ? `Unknown: none of the characters it knows (${percent(unknown)}). The nearest:`
    : `Unknown: ${percent(unknown ?? 0)}`;
  page.characters = isUnknown ? [] : ranked.filter(([score]) => score >= model.character_threshold).map(([, name]) => name);
  const place = all.findIndex(([, name]) => name === page.asked);
  const rows = place >= NUM_CHARACTERS ? [...ranked, all[place]] : ranked;
  element("characters").replaceChildren(...rows.map(([score, name], i) => {
    const item = document.createElement("li");
    item.classList.toggle("asked", name === page.asked);
    const bar = text("i", ""); // the number says the same
    bar.style.width = `${100 * score}%`;
    const label = i < NUM_CHARACTERS ? name : `${place + 1}. ${name}`;
    item.append(bar, text("span", label), text("span", percent(score)));
    return item;
  }));
}

function showRating(scores) {
  element("rating").hidden = !scores;
  if (!scores) return;
  const [[score, i]] = best(scores, 1);
  element("rating").textContent = `Rating: ${model.ratings[i]} (${percent(score)})`;
}

function showTags(scores) {
  element("tags-part").hidden = !scores;
  page.scores = scores;
  const threshold = (i) => page.threshold ?? model.tag_thresholds?.[i] ?? model.tag_threshold;
  page.shown = best(scores ?? [], scores?.length).filter(([score, i]) => score >= threshold(i))
    .map(([score, i]) => [model.tags[i], score])
    .filter(([tag]) => !page.struck.has(tag) && !page.hints.includes(tag));
  const focused = [...element("tags").querySelectorAll("button")].indexOf(document.activeElement);
  element("tags").replaceChildren(...page.shown.map(([tag, score]) => {
    const buttons = [button("×", `Strike ${tag}`, () => { page.struck.add(tag); showTags(scores); })];
    if (model.graph_with_tags) buttons.unshift(button("✓", `${tag} is a hint`, () => addHint(tag)));
    return chip(tag, score, buttons);
  }));
  // The button that was pressed is gone: who uses the keyboard goes on where it was.
  if (focused >= 0) ([...element("tags").querySelectorAll("button")].at(focused) ?? element("hint")).focus();
  rove(element("tags"), Math.max(focused, 0));
  element("copy").textContent = ["Copy tags", "Copy character and tags"][page.characters.length] ?? "Copy characters and tags";
  const isBusy = element("results").ariaBusy === "true";
  element("copy").disabled = isBusy || !scores || page.shown.length + page.hints.length === 0;
  element("copied").textContent = "";
}

function showHints() {
  element("hints").replaceChildren(...page.hints.map((tag) => chip(tag, null, [button("×", `Remove ${tag}`, () => {
    page.hints = page.hints.filter((hint) => hint !== tag);
    showHints();
    element("hint").focus();
    update();
  })])));
  rove(element("hints"), 0);
}

for (const id of ["tags", "hints", "names", "samples"]) element(id).addEventListener("keydown", step);

// On a phone the answer lies below the picture: who has just chosen one wants to see it.
function bringIntoView() {
  if (!page.isNew) return;
  page.isNew = false;
  const top = element("results").getBoundingClientRect().top;
  if (top < 0 || top > innerHeight / 2) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    element("results").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }
}

function showThreshold() {
  const isOwn = page.threshold === null;
  element("threshold").value = page.threshold ?? model.tag_threshold;
  element("threshold-said").textContent = isOwn && model.tag_thresholds ? "each tag its own" : percent(page.threshold ?? model.tag_threshold);
  element("threshold-reset").hidden = isOwn;
  if (page.scores) showTags(page.scores);
}
element("threshold").addEventListener("input", (event) => { page.threshold = Number(event.target.value); showThreshold(); });
element("threshold-reset").addEventListener("click", () => { page.threshold = null; showThreshold(); element("threshold").focus(); });

function showSamples() {
  element("samples-part").hidden = !model.samples?.length;
  element("samples").replaceChildren(...(model.samples ?? []).map((address, i) => {
    const item = document.createElement("li");
    const chosen = button("", `Sample picture ${i + 1}`, async () => {
      const answer = await fetch(address);
      if (!answer.ok) return say(`Sample picture ${i + 1} could not be loaded.`, true);
      return takePicture([new File([await answer.blob()], `sample ${i + 1}`)]);
    });
    chosen.append(Object.assign(document.createElement("img"), { src: address, alt: "" }));
    item.append(chosen);
    return item;
  }));
  rove(element("samples"), 0);
}

// The characters whose names hold what was typed; one that is pressed is shown with its score and place.
function showNames() {
  const wanted = element("names-filter").value.trim().toLowerCase().replace(/\s+/g, "_");
  const all = [...new Set([...model.characters, ...(gallery?.characters.keys() ?? [])])];
  const found = all.filter((name) => name.toLowerCase().includes(wanted));
  element("names").replaceChildren(...found.slice(0, NUM_NAMES).map((name) => {
    const item = document.createElement("li");
    item.append(button(name, `What does ${name} score?`, () => {
      page.asked = name;
      if (!page.said || !page.pixels) return say(`Give a picture first, to see what it scores for ${name}.`);
      showCharacters();
      document.querySelector("#characters .asked")?.scrollIntoView({ block: "nearest" });
    }));
    return item;
  }));
  rove(element("names"), 0);
}
element("names-part").addEventListener("toggle", () => { if (element("names-part").open && model) showNames(); });
element("names-filter").addEventListener("input", () => { if (model) showNames(); });

function addHint(tag) {
  const limit = model.max_tag_tokens - 2;
  if (page.hints.includes(tag)) return say(`${tag} is a hint already.`);
  if (page.hints.length >= limit) return say(`The model reads ${limit} hints at most.`, true);
  page.hints.push(tag);
  showHints();
  return update();
}

function chip(tag, score, buttons) {
  const item = document.createElement("li");
  const label = text("span", tag);
  if (score !== null) label.append(" ", text("small", percent(score)));
  item.append(label, ...buttons);
  return item;
}

combobox(element("hint"), element("suggestions"), {
  names: () => model?.tags ?? [],
  isFree: (tag) => !page.hints.includes(tag),
  choose: addHint,
  refuse: (typed) => say(`The model does not know the tag ${typed}.`, true),
});

// ---------------------------------------------------------------- ways to give a picture
const drop = element("drop");
element("file").addEventListener("change", (event) => {
  takePicture([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
document.addEventListener("paste", (event) => takePicture([...(event.clipboardData?.files ?? [])]));
function showTarget(event) { // where what is dragged would fall
  const teaches = Boolean(event?.target.closest?.("#teach-part"));
  drop.classList.toggle("over", Boolean(event) && !teaches);
  element("lesson").classList.toggle("over", teaches);
}
document.addEventListener("dragover", (event) => { event.preventDefault(); showTarget(event); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) showTarget(null); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  showTarget(null);
  const files = [...event.dataTransfer.files];
  if (event.target.closest?.("#teach-part") && files.length) return addLesson(files);
  files.length ? takePicture(files) : say("That was no file. Save the picture first, or copy and paste it.", true);
});
// As it is copied; `>_<` and other faces keep their underscore, as `mfdn tag --spaces` has it.
function spelled(name) {
  const words = element("spaces").checked && name.length > 3 ? name.replaceAll("_", " ") : name;
  return element("escape").checked ? words.replace(/[()]/g, "\\$&") : words;
}

element("copy").addEventListener("click", async () => {
  const tags = [...page.hints, ...page.shown.map(([tag]) => tag)];
  const line = [...page.characters, ...tags].map(spelled).join(", ");
  const who = page.characters.join(", ")
    || (page.isUnknown ? "no character, for it is unknown" : `no character, for none has ${percent(model.character_threshold)}`);
  let said;
  try {
    await navigator.clipboard.writeText(line);
    said = `Copied: ${who}, and ${tags.length} ${tags.length === 1 ? "tag" : "tags"}.`;
  } catch {
    said = `This browser does not let a page copy. Here is the line: ${line}`;
  }
  element("copied").textContent = said;
});

// ---------------------------------------------------------------- characters that are taught
function tell(content, isError = false) {
  element("teach-status").textContent = content;
  element("teach-status").classList.toggle("error", isError);
}

async function openGallery() {
  gallery = new Gallery(model.axes);
  try {
    const mine = await kept(model.axes);
    if (mine) gallery.load(mine);
    else if (model.gallery) gallery.load(await (await fetch(model.gallery)).arrayBuffer());
  } catch (error) {
    console.error(error);
    tell("What was taught here before could not be read.", true);
  }
  element("teach-part").hidden = false;
  showTaught();
}

async function addLesson(files) {
  for (const file of files) {
    const name = file.name || "What you gave";
    tell(`Reading ${name}…`);
    try {
      const pixels = await readPixels(file, name);
      const graph = await session(model.graph);
      const outputs = await queue(() => graph.run({ pixel_values: pixelTensor(pixels) }));
      lesson.push({ file, address: URL.createObjectURL(file), z: Float32Array.from(outputs.picture_embedding.data) });
    } catch (problem) {
      if (typeof problem !== "string") console.error(problem);
      return tell(typeof problem === "string" ? problem : "The model stopped with an error. Reload the page.", true);
    } finally {
      showLesson();
    }
  }
  tell("");
}

function showLesson() {
  element("lesson-pictures").replaceChildren(...lesson.map((picture) => {
    const item = document.createElement("li");
    const shown = Object.assign(document.createElement("img"), { src: picture.address, alt: picture.file.name });
    item.classList.toggle("odd", Boolean(picture.isOdd));
    item.append(shown, button("×", `Leave out ${picture.file.name}`, () => {
      URL.revokeObjectURL(picture.address);
      lesson.splice(lesson.indexOf(picture), 1);
      showLesson();
    }));
    return item;
  }));
  element("teach").disabled = !lesson.length;
}

async function thumbnailOf(file) {
  const bitmap = await createImageBitmap(file);
  const scale = THUMBNAIL / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.8); });
  return new Uint8Array(await blob.arrayBuffer());
}

async function teach() {
  const name = element("name").value.trim();
  if (!lesson.length) return tell("Give pictures of the character first.", true);
  if (!isName(name)) return tell("Give the character a name, in one line.", true);
  const before = gallery.characters.get(name)?.count ?? 0;
  const pictures = lesson.map(({ z }) => z);
  const odd = gallery.teach(name, pictures, await thumbnailOf(lesson[0].file));
  const sentences = [before ? `${name} was taught before: now it has ${before + pictures.length} pictures.` : `${name} is taught.`];
  if (before + pictures.length === 1) sentences.push("From one picture it will be missed often; five do far better.");
  if (model.characters.includes(name)) sentences.push("It was trained, too, and has one score.");
  if (odd.length) {
    sentences.push(`Unlike the others: ${odd.map((i) => lesson[i].file.name).join(", ")}. If that is somebody else, forget ${name} and teach it again without.`);
  }
  lesson.splice(0).forEach(({ address }) => URL.revokeObjectURL(address));
  element("name").value = "";
  showLesson();
  await changed(sentences.join(" "));
}

// The gallery is another one: it is kept, shown, and asked again about the picture that is there.
async function changed(sentence) {
  showTaught();
  if (page.said && element("results").ariaBusy === "false" && page.pixels) showCharacters();
  try {
    await keep(gallery);
    tell(sentence);
  } catch (error) {
    console.error(error);
    tell(`${sentence} This browser keeps nothing, so export it before you leave.`, true);
  }
}

function showTaught() {
  element("taught").replaceChildren(...[...gallery.characters].map(([name, { count, thumbnail }]) => {
    const item = document.createElement("li");
    const picture = Object.assign(document.createElement("img"), { alt: "" });
    if (thumbnail.length) picture.src = URL.createObjectURL(new Blob([thumbnail], { type: "image/jpeg" }));
    picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
    const label = text("span", `${name} `);
    label.append(text("small", `${count} ${count === 1 ? "picture" : "pictures"}`));
    item.append(picture, label, button("Forget", `Forget ${name}`, () => {
      gallery.characters.delete(name);
      changed(`${name} is forgotten.`);
    }));
    return item;
  }));
  element("export").disabled = !gallery.characters.size;
}

element("lesson-files").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  await addLesson(files);
});
element("teach-form").addEventListener("submit", (event) => { event.preventDefault(); teach(); });
element("export").addEventListener("click", () => {
  const address = URL.createObjectURL(gallery.save());
  Object.assign(document.createElement("a"), { href: address, download: "gallery.safetensors" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
});
element("import").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    const number = gallery.load(await file.arrayBuffer());
    await changed(`${number} ${number === 1 ? "character is" : "characters are"} imported.`);
  } catch (error) {
    tell(`${file.name}: ${error.message}`, true);
  }
});

const starting = start();
