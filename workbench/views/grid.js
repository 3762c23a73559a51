// Rows of shaded tokens: a grid to screen readers and the keyboard, running text to the eye.

const SHADE = 0.55;
const signed = (value) => (value === 0 ? "0" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`);
const visible = (token) => token.replaceAll("\n", "⏎").trim() || (token ? "␣" : "∅");

const shade = (element, share) => {
  element.dataset.sign = Math.sign(share);
  element.style.setProperty("--wb-shade", (SHADE * Math.min(Math.abs(share), 1)).toFixed(3));
};

// What the shades of numbers up to `scale` mean.
const swatches = (label, shares, scale) => [`${label} `, ...shares.map((share) => {
  const swatch = node("span", { class: "wb-swatch" }, signed(share * scale));
  shade(swatch, share);
  return swatch;
})];

// `readout` says what is under the pointer or the focus; `choose` is told the place picked, [row, position] or [].
const tokenGrid = (readout, hint, choose) => {
  const element = node("div", { role: "grid", class: "wb-tokens" });
  let shown = { rows: [], label: "" };
  let picked = [];
  let cells = []; // cells[row][position]
  let current = [0, 0]; // the one token in the tab order

  const describe = ([row, position]) => {
    const { title, tokens, values } = shown.rows[row];
    const place = `token ${position} of ${tokens.length}${title ? `, ${title}` : ""}`;
    return `${visible(tokens[position])} · ${place} · ${shown.label} ${signed(values[position])}`;
  };
  const rest = () => { readout.textContent = picked.length ? `Picked: ${describe(picked)}` : hint; };
  const move = (to) => {
    cells[current[0]][current[1]].tabIndex = -1;
    current = to;
    cells[to[0]][to[1]].tabIndex = 0;
  };
  const pick = (place) => {
    picked = place;
    cells.flat().forEach((cell) => cell.removeAttribute("aria-selected"));
    if (picked.length) cells[picked[0]][picked[1]].setAttribute("aria-selected", "true");
    rest();
  };

  const draw = ({ rows, label, scale, name }, place) => {
    shown = { rows, label };
    element.setAttribute("aria-label", name);
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
    element.replaceChildren(...rows.map(({ title }, row) => {
      const line = node("div", { role: "row", class: "wb-line" }, ...cells[row]);
      if (title) line.prepend(node("div", { role: "rowheader", class: "wb-title wb-quiet" }, title));
      return line;
    }));
    current = [Math.max(cells.findIndex((row) => row.length), 0), 0];
    if (cells[current[0]]?.length) cells[current[0]][0].tabIndex = 0;
    pick(place);
  };

  const placeOf = (event) => event.target.closest?.("[data-place]")?.dataset.place.split(",").map(Number);
  element.addEventListener("pointerover", (event) => {
    const place = placeOf(event);
    if (place) readout.textContent = describe(place);
  });
  element.addEventListener("pointerleave", rest);
  element.addEventListener("focusin", (event) => {
    const place = placeOf(event);
    if (!place) return;
    move(place);
    readout.textContent = describe(place);
  });
  element.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place) choose(place);
  });
  element.addEventListener("keydown", (event) => {
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
  return { element, draw, pick };
};

