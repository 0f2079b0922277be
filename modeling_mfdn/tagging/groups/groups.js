// Names of groups become names.json, which `mfdn teach` reads: { folder, characters: { name: [pictures] } }.
const element = (id) => document.getElementById(id);

function named() {
  const characters = new Map(); // two groups may have one name: they are one character
  for (const section of document.querySelectorAll("section")) {
    const name = section.querySelector("input").value.trim();
    const pictures = [...section.querySelectorAll('[aria-pressed="true"]')].map((button) => button.dataset.name);
    if (name && pictures.length) characters.set(name, [...(characters.get(name) ?? []), ...pictures]);
  }
  return characters;
}

function show() {
  const characters = named();
  const count = [...characters.values()].reduce((sum, pictures) => sum + pictures.length, 0);
  const who = `${characters.size} ${characters.size === 1 ? "character" : "characters"}`;
  element("named").textContent = characters.size ? `${who}, ${count} pictures.` : "No group is named yet.";
  element("save").disabled = !characters.size;
}

document.addEventListener("input", show);
for (const button of document.querySelectorAll(".pictures button")) {
  button.addEventListener("click", () => {
    button.ariaPressed = String(button.ariaPressed !== "true");
    show();
  });
}
element("save").addEventListener("click", () => {
  const names = { folder: document.body.dataset.folder, characters: Object.fromEntries(named()) };
  const address = URL.createObjectURL(new Blob([JSON.stringify(names, null, 1)], { type: "application/json" }));
  Object.assign(document.createElement("a"), { href: address, download: "names.json" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
});
element("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(element("command").textContent).catch(() => {});
});
show();
