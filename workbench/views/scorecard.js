// A table of measurements, each on a line from nothing to the best; a metric opens to what it means.

const percent = (share) => `${(100 * share).toFixed(2)}%`;

const track = ({ at, low, high }) => {
  const line = node("div", { class: "wb-track", "aria-hidden": "true" });
  const reach = node("div", { class: "wb-reach" });
  reach.style.left = percent(low);
  reach.style.width = percent(high - low);
  const dot = node("div", { class: "wb-dot" });
  dot.style.left = percent(at);
  line.append(reach, dot);
  return line;
};

const table = (heads, lines) => node(
  "table", { class: "wb-parts" },
  node("thead", {}, node("tr", {}, ...heads.map((head) => node("th", { scope: "col" }, head)))),
  node("tbody", {}, ...lines.map(([name, ...cells]) => node(
    "tr", {}, node("th", { scope: "row" }, name), ...cells.map((cell) => node("td", {}, cell)),
  ))),
);

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  const { legend, dictionaries, rows } = model.get("shown");
  const unique = Math.random().toString(36).slice(2); // each widget is a module of its own

  const lines = rows.map((row, i) => {
    const id = `wb-${unique}-${i}`;
    const button = node("button", { type: "button", "aria-expanded": "false", "aria-controls": id }, row.title);
    const cells = row.cells.map((cell) => {
      const found = node("td", { title: cell.told }, node("span", { class: "wb-number" }, cell.text));
      if (cell.at !== null) found.append(track(cell));
      return found;
    });
    const told = row.cells.map((cell, n) => node("li", {}, `${dictionaries[n]}: ${cell.told}`));
    const inside = node(
      "td", { colspan: dictionaries.length + 1 },
      node("p", {}, [row.says, row.better, row.null, ""].filter((part, n) => part || n === 3).join(" "), node("code", {}, row.id)),
      node("ul", {}, ...told),
    );
    if (row.parts.lines?.length) inside.append(node("div", { class: "wb-wide" }, table(row.parts.heads, row.parts.lines)));
    const detail = node("tr", { id, class: "wb-detail" }, inside);
    button.addEventListener("click", () => {
      model.set("opened", model.get("opened") === row.id ? "" : row.id);
      model.save_changes();
    });
    button.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      lines[i + step]?.button.focus();
      event.preventDefault();
    });
    return { row, button, detail, line: node("tr", {}, node("th", { scope: "row" }, button), ...cells) };
  });

  body.append(
    node("p", { class: "wb-caption wb-quiet" }, legend),
    node("div", { class: "wb-wide" }, node(
      "table", { class: "wb-card" },
      node("thead", {}, node("tr", {}, node("td"), ...dictionaries.map((name) => node("th", { scope: "col" }, name)))),
      node("tbody", {}, ...lines.flatMap(({ line, detail }) => [line, detail])),
    )),
  );

  const open = () => {
    for (const { row, button, detail } of lines) {
      const here = model.get("opened") === row.id;
      button.setAttribute("aria-expanded", String(here));
      detail.hidden = !here;
    }
  };
  model.on("change:opened", open);
  open();
  return dispose;
};

export default { render };
