// What the page is made of, and knows nothing of pictures: text, buttons, lists for the keyboard, a combobox.
const NUM_SUGGESTIONS = 8;

// Names come from data that strangers tagged: they are text, never markup.
export function text(kind, content) {
  return Object.assign(document.createElement(kind), { textContent: content });
}

export function button(content, label, action) {
  const made = text("button", content);
  made.type = "button";
  made.ariaLabel = label;
  made.title = label;
  made.addEventListener("click", action);
  return made;
}

// One stop of the Tab key for all buttons of a list: arrows go on from there.
export function rove(list, chosen) {
  const buttons = [...list.querySelectorAll("button")];
  buttons.forEach((one, i) => { one.tabIndex = i === Math.min(chosen, buttons.length - 1) ? 0 : -1; });
}

export function step(event) {
  const list = event.currentTarget;
  const buttons = [...list.querySelectorAll("button")];
  const here = buttons.indexOf(document.activeElement);
  const each = buttons.length / (list.children.length || 1); // buttons of a tag
  const to = { ArrowRight: here + 1, ArrowLeft: here - 1, ArrowDown: here + each, ArrowUp: here - each, Home: 0, End: buttons.length - 1 }[event.key];
  if (here < 0 || to === undefined || !buttons[to]) return;
  event.preventDefault();
  rove(list, to);
  buttons[to].focus();
}

// An input with a list of the names that fit (an ARIA combobox). `names` and `isFree` say what there is; a name that is
// taken goes to `choose`, one that is none to `refuse`.
export function combobox(input, list, { names, isFree, choose, refuse }) {
  const typed = () => input.value.trim().toLowerCase().replace(/[\s_]+/g, "_");

  function show(isOpen) {
    list.hidden = !isOpen;
    input.ariaExpanded = String(isOpen);
    input.removeAttribute("aria-activedescendant");
  }

  function take(name) {
    input.value = "";
    show(false);
    choose(name);
  }

  function suggest() {
    const wanted = typed();
    const found = [];
    const begins = (name) => name !== wanted && name.startsWith(wanted);
    for (const matches of wanted ? [(name) => name === wanted, begins, (name) => name.indexOf(wanted) > 0] : []) {
      for (const name of names()) {
        if (found.length === NUM_SUGGESTIONS) break;
        if (matches(name) && isFree(name)) found.push(name);
      }
    }
    list.replaceChildren(...found.map((name, i) => {
      const item = Object.assign(text("li", name), { id: `suggestion-${i}`, role: "option", ariaSelected: "false" });
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(name); });
      return item;
    }));
    show(found.length > 0);
  }

  function move(step) {
    const items = [...list.children];
    if (list.hidden || !items.length) return;
    const old = items.findIndex((item) => item.ariaSelected === "true");
    const next = old === -1 && step < 0 ? items.length - 1 : (old + step + items.length) % items.length;
    items.forEach((item, i) => { item.ariaSelected = String(i === next); });
    input.setAttribute("aria-activedescendant", items[next].id);
  }

  function enter() {
    const items = [...list.children];
    const selected = items.find((item) => item.ariaSelected === "true");
    if (!selected && names().includes(typed())) return take(typed());
    const chosen = selected ?? items[0];
    if (!list.hidden && chosen) return take(chosen.textContent);
    if (input.value.trim()) refuse(input.value.trim());
  }

  input.addEventListener("input", suggest);
  input.addEventListener("blur", () => show(false));
  input.addEventListener("keydown", (event) => {
    const actions = { ArrowDown: () => move(1), ArrowUp: () => move(-1), Enter: enter, Escape: () => show(false) };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
}
