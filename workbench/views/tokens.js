// Documents of shaded tokens: a grid to screen readers and the keyboard, running text to the eye.

const SHADE = 0.55;
const signed = (value) => (value === 0 ? "0" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`);
const visible = (token) => token.replaceAll("\n", "⏎").trim() || (token ? "␣" : "∅");

const shade = (element, share) => {
  element.dataset.sign = Math.sign(share);
  element.style.setProperty("--wb-shade", (SHADE * Math.min(Math.abs(share), 1)).toFixed(3));
};

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  const caption = node("div", { class: "wb-caption" });
  const legend = node("div", { class: "wb-legend wb-quiet" });
  const grid = node("div", { role: "grid", class: "wb-tokens" });
  const readout = node("div", { class: "wb-readout wb-quiet", "aria-live": "polite" });
  body.append(caption, legend, grid, readout);

  let cells = []; // cells[row][position]
  let current = [0, 0]; // the one token in the tab order

  const describe = ([row, position]) => {
    const { title, tokens, values } = model.get("rows")[row];
    const place = `token ${position} of ${tokens.length}${title ? `, ${title}` : ""}`;
    return `${visible(tokens[position])} · ${place} · ${model.get("label")} ${signed(values[position])}`;
  };
  const rest = () => {
    const picked = model.get("picked");
    readout.textContent = picked.length ? `Picked: ${describe(picked)}` : "Point at a token, or use the arrow keys.";
  };
  const move = (to) => {
    cells[current[0]][current[1]].tabIndex = -1;
    current = to;
    cells[to[0]][to[1]].tabIndex = 0;
  };
  const pick = () => {
    const picked = model.get("picked");
    cells.flat().forEach((cell) => cell.removeAttribute("aria-selected"));
    if (picked.length) cells[picked[0]][picked[1]].setAttribute("aria-selected", "true");
    rest();
  };

  const draw = () => {
    const rows = model.get("rows");
    const scale = model.get("scale");
    const label = model.get("label");
    caption.textContent = model.get("caption");
    grid.setAttribute("aria-label", model.get("caption") || `Tokens by ${label}`);

    const negative = rows.some((row) => row.values.some((value) => value < 0));
    legend.replaceChildren(`${label} `, ...[...(negative ? [-1, -0.5] : []), 0, 0.5, 1].map((share) => {
      const swatch = node("span", { class: "wb-swatch" }, signed(share * scale));
      shade(swatch, share);
      return swatch;
    }));

    // Pieces of words (a tokenizer that marks spaces) stand together; whole words stand apart.
    const pieces = rows.some((row) => row.tokens.some((token) => /^\s+\S/.test(token)));
    cells = rows.map(({ tokens, values }, row) => tokens.map((token, position) => {
      const cell = node("span", {
        role: "gridcell",
        class: `wb-token${pieces && !/^\s/.test(token) ? " wb-joined" : ""}`,
        tabindex: "-1",
        "aria-label": `${visible(token)}, ${signed(values[position])}`,
        "data-place": `${row},${position}`,
      }, visible(token));
      shade(cell, values[position] / scale);
      return cell;
    }));
    grid.replaceChildren(...rows.map(({ title }, row) => {
      const line = node("div", { role: "row", class: "wb-line" }, ...cells[row]);
      if (title) line.prepend(node("div", { role: "rowheader", class: "wb-title wb-quiet" }, title));
      return line;
    }));
    current = [Math.max(cells.findIndex((row) => row.length), 0), 0];
    if (cells[current[0]]?.length) cells[current[0]][0].tabIndex = 0;
    pick();
  };

  const placeOf = (event) => event.target.closest?.("[data-place]")?.dataset.place.split(",").map(Number);
  const choose = (place) => {
    model.set("picked", place);
    model.save_changes();
  };

  grid.addEventListener("pointerover", (event) => {
    const place = placeOf(event);
    if (place) readout.textContent = describe(place);
  });
  grid.addEventListener("pointerleave", rest);
  grid.addEventListener("focusin", (event) => {
    const place = placeOf(event);
    if (!place) return;
    move(place);
    readout.textContent = describe(place);
  });
  grid.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place) choose(place);
  });
  grid.addEventListener("keydown", (event) => {
    const [row, position] = current;
    const last = cells[row].length - 1;
    const goal = {
      ArrowRight: [row, Math.min(position + 1, last)],
      ArrowLeft: [row, Math.max(position - 1, 0)],
      ArrowDown: [Math.min(row + 1, cells.length - 1), position],
      ArrowUp: [Math.max(row - 1, 0), position],
      Home: [row, 0],
      End: [row, last],
    }[event.key];
    if (goal) {
      const [to, at] = goal;
      cells[to][Math.min(at, cells[to].length - 1)]?.focus();
    } else if (event.key === "Enter" || event.key === " ") choose(current);
    else if (event.key === "Escape") choose([]);
    else return;
    event.preventDefault();
  });

  for (const name of ["rows", "scale", "label", "caption"]) model.on(`change:${name}`, draw);
  model.on("change:picked", pick);
  draw();
  return dispose;
};

export default { render };
