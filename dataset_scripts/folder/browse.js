const field = document.querySelector("input"), count = document.querySelector("output");
field?.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const item of document.querySelectorAll("[data-text]")) {
    const text = item.dataset.text.toLowerCase();
    item.hidden = !words.every(word => text.includes(word));
    shown += !item.hidden;
  }
  count.textContent = words.length ? `${shown} shown` : "";
});
