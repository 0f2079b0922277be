// Draws the lists of the pages. Nothing of a dump becomes markup: all text is set as text.
"use strict";

const PER_PAGE = { posts: 60, duplicates: 20, suspicious: 60, characters: 600, tags: 600, dropped: 1e9 };
const page = document.body.dataset.page;
const pieces = JSON.parse(document.body.dataset.pieces);
const rows = {};
const $ = id => document.getElementById(id);
const state = new URLSearchParams(location.hash.slice(1));
let number = 0; // of the page that is shown

function add(name, more) { (rows[name] ??= []).push(...more); } // called by the pieces

function piece(name, i) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/${name}-${String(i).padStart(3, "0")}.js`;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${script.src} cannot be read`));
    document.head.append(script);
  });
}

async function load(name) {
  rows[name] ??= [];
  for (let i = 0; i < pieces[name]; i++) {
    await piece(name, i);
    if (name === page || page === "posts") draw();
  }
}

function element(kind, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(kind), attributes);
  made.append(...children);
  return made;
}

// A name that may break behind its underscores, and not within a word.
function broken(name) {
  const parts = [];
  for (const part of name.split(/(?<=_)/)) parts.push(part, document.createElement("wbr"));
  return parts.slice(0, -1);
}

const linked = (key, name, className = "") => element("a", { className, href: postsOf(key, name) }, ...broken(name));
const postsOf = (key, name) => `posts.html#${new URLSearchParams({ [key]: name })}`;
const words = () => ($("filter")?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);

function card(post) {
  const item = element("li", { tabIndex: -1 });
  item.dataset.link = post.character ? postsOf("character", post.character) : "";
  item.append(post.size
    ? element("img", { loading: "lazy", src: `thumbnails/${post.post_id}.jpg`, alt: post.character ?? "" })
    : element("div", { className: "none" }, post.why_none ?? "cannot be decoded"));
  item.append(post.character
    ? linked("character", post.character, "name")
    : element("span", { className: "name" }, "no or several characters"));
  if (post.taken_for && post.taken_for !== post.character)
    item.append(element("small", { className: "warn" }, "taken for ", linked("character", post.taken_for)));
  const about = [post.split, post.rating && `rating ${post.rating}`, post.size].filter(Boolean);
  if (post.distance !== undefined) about.unshift(`distance ${post.distance.toFixed(2)}`);
  item.append(element("small", {}, `${post.post_id} · ${about.join(" · ")}`));
  if (post.near_train) item.append(element("small", { className: "warn" }, "train shows the same"));
  const tags = element("div", { className: "tags" });
  for (const tag of post.tags) tags.append(linked("tag", tag), " ");
  item.append(element("details", {}, element("summary", {}, `${post.tags.length} tags`), tags));
  return item;
}

function cards(posts) {
  const list = element("ul", { className: "posts" });
  list.append(...posts.map(card));
  return list;
}

const searched = new WeakMap(); // a post → its text, made once
function text(post) {
  if (!searched.has(post))
    searched.set(post, ` ${post.character ?? ""} ${post.tags.join(" ")} ${post.post_id} `.toLowerCase());
  return searched.get(post);
}

const byId = new Map();
function postOf(id) {
  for (let i = byId.size; i < (rows.posts ?? []).length; i++) byId.set(rows.posts[i].post_id, rows.posts[i]);
  return byId.get(id);
}

// Of each page the things that its filter leaves, and how some of them are drawn.
const KINDS = {
  posts: {
    some() {
      const [character, tag, split, all] = [state.get("character"), state.get("tag"), $("split").value, words()];
      return rows.posts.filter(post => (!character || post.character === character) && (!tag || post.tags.includes(tag))
        && (!split || post.split === split) && all.every(word => text(post).includes(word)));
    },
    draw: cards,
  },
  suspicious: {
    some: () => rows.suspicious.map(postOf).filter(post => post && words().every(word => text(post).includes(word))),
    draw: cards,
  },
  duplicates: {
    some: () => rows.duplicates.map(ids => ids.map(postOf).filter(Boolean)).filter(
      group => group.length && words().every(word => group.some(post => text(post).includes(word)))),
    draw(groups) {
      return element("div", {}, ...groups.map(group => {
        const splits = [...new Set(group.map(post => post.split))];
        const head = `${group.length} pictures in ${splits.join(", ")}`;
        return element("section", { className: "group" }, element("h2", {}, head), cards(group));
      }));
    },
  },
  dropped: {
    some: () => rows.dropped,
    draw(rules) {
      const parts = [];
      for (const rule of rules) {
        parts.push(element("h2", {}, rule.drops ? `${rule.rule}: ${rule.drops}` : rule.rule));
        if (rule.post_ids) {
          parts.push(element("p", { className: "note" }, `${rule.count.toLocaleString("en")}: ${rule.post_ids.join(", ")}`));
          continue;
        }
        const counts = ["posts", "characters", "tags"].map(kind => `${rule[`${kind}_dropped`].toLocaleString("en")} ${kind}`);
        parts.push(element("p", { className: "note" },
          `${counts.join(", ")} dropped; ${rule.posts_after.toLocaleString("en")} posts left.`));
        if (rule.posts.length) parts.push(cards(rule.posts));
        if (rule.tags.length) parts.push(names(rule.tags, null));
      }
      return element("div", {}, ...parts);
    },
  },
};
for (const [kind, key] of [["characters", "character"], ["tags", "tag"]])
  KINDS[kind] = {
    some() {
      const found = rows[kind].filter(row => words().every(word => `${row[0]} ${row[2] ?? ""}`.toLowerCase().includes(word)));
      const byName = (a, b) => (a[0] < b[0] ? -1 : 1);
      return found.sort($("order").value === "name" ? byName : (a, b) => b[1] - a[1] || byName(a, b));
    },
    draw: found => names(found, key),
  };

function names(found, key) {
  const list = element("ul", { className: "names" });
  for (const [name, posts, series] of found)
    list.append(element("li", {},
      element("span", {}, ...(key ? [linked(key, name)] : broken(name)),
        series ? element("small", {}, ` ${series}`) : ""),
      element("small", {}, posts.toLocaleString("en"))));
  return list;
}

function draw() {
  const found = KINDS[page].some(), perPage = PER_PAGE[page], last = Math.max(0, Math.ceil(found.length / perPage) - 1);
  number = Math.min(number, last);
  $("list").replaceChildren(found.length
    ? KINDS[page].draw(found.slice(number * perPage, (number + 1) * perPage))
    : element("p", { className: "note" }, "Nothing has all of these words."));
  $("list").querySelector(".posts li")?.setAttribute("tabindex", "0");
  const picked = [...state].filter(([key]) => key === "character" || key === "tag").map(([, name]) => name);
  if (picked.length) document.querySelector("h1").textContent = picked.join(", ");
  if (page !== "dropped") $("count").textContent = `${found.length.toLocaleString("en")} ${page === "duplicates" ? "groups" : page === "suspicious" ? "pictures" : page === "posts" ? "pictures" : page}`;
  if (page === "posts" && (picked.length || words().length)) $("count").append(" ", element("a", { href: "posts.html" }, "show all"));
  const turn = (step, word) => element("button", { type: "button", disabled: number + step < 0 || number + step > last, onclick: () => go(step) }, word);
  $("pager").replaceChildren(...(last ? [turn(-1, "Previous"), `${number + 1} of ${last + 1}`, turn(1, "Next")] : []));
}

function go(step) {
  number = Math.max(0, number + step);
  draw();
  scrollTo(0, 0);
  $("list").querySelector(".posts li")?.focus({ preventScroll: true });
}

function move(step, isRow) {
  const all = [...document.querySelectorAll(".posts li")], here = all.indexOf(document.activeElement.closest?.(".posts li"));
  let next = here + step;
  if (isRow && here >= 0) { // the nearest in the row below or above
    const top = all[here].offsetTop, left = all[here].getBoundingClientRect().left;
    const other = all.filter(item => (item.offsetTop - top) * step > 0);
    const row = other.length && (step > 0 ? Math.min : Math.max)(...other.map(item => item.offsetTop));
    const near = other.filter(item => item.offsetTop === row);
    next = near.length ? all.indexOf(near.reduce((a, b) =>
      Math.abs(a.getBoundingClientRect().left - left) <= Math.abs(b.getBoundingClientRect().left - left) ? a : b)) : here;
  }
  const item = all[Math.max(0, Math.min(all.length - 1, next))];
  if (!item) return;
  for (const other of all) other.tabIndex = -1;
  item.tabIndex = 0;
  item.focus();
  item.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const arrows = { ArrowRight: [1, false], ArrowLeft: [-1, false], ArrowDown: [1, true], ArrowUp: [-1, true] };
  if (event.key === "/" && $("filter")) $("filter").focus();
  else if (event.key === "n" && $("pager")?.lastChild?.disabled === false) go(1);
  else if (event.key === "p" && $("pager")?.firstChild?.disabled === false) go(-1);
  else if (event.key === "Enter" && event.target.dataset.link) location.href = event.target.dataset.link;
  else if (arrows[event.key] && document.querySelector(".posts li")
    && (event.target.closest(".posts li") || event.key === "ArrowRight")) move(...arrows[event.key]);
  else return;
  event.preventDefault();
});

if (page !== "index") {
  if ($("filter")) $("filter").value = state.get("q") ?? "";
  for (const id of ["filter", "order", "split"])
    $(id)?.addEventListener("input", () => {
      number = 0;
      if (id === "filter") {
        state.set("q", $("filter").value);
        history.replaceState(null, "", `#${state}`); // a link to what is shown
      }
      draw();
    });
  addEventListener("hashchange", () => location.reload());
  const needed = ["duplicates", "suspicious"].includes(page) ? ["posts", page] : [page];
  needed.reduce((before, name) => before.then(() => load(name)), Promise.resolve())
    .catch(error => { $("list").replaceChildren(error.message); });
}
