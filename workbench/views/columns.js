// Texts side by side that grow while they are written. An exported file may hold several recorded states.

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  const picker = node("div", { class: "wb-picker" });
  const caption = node("div", { class: "wb-caption" });
  const row = node("div", { class: "wb-columns" });
  const status = node("div", { class: "wb-status wb-quiet", role: "status", "aria-live": "polite" });
  body.append(picker, caption, row, status);
  let columns = [];

  const makeColumn = ({ title }) => {
    const parts = {
      prompt: node("span", { class: "wb-quiet" }),
      written: node("span", { class: "wb-written" }),
      fill: node("div", { class: "wb-fill" }),
      readout: node("div", { class: "wb-count" }),
    };
    parts.bar = node("div", { class: "wb-bar", "aria-hidden": "true" }, parts.fill);
    parts.section = node("section", { class: "wb-column", "aria-label": title },
      node("div", { class: "wb-heading" }, title), node("p", {}, parts.prompt, parts.written), parts.bar, parts.readout);
    parts.title = title;
    parts.pieces = [];
    return parts;
  };

  const fill = (parts, { pieces, share, readout }, prompt) => {
    parts.prompt.textContent = prompt;
    const kept = parts.pieces.every(([text, marked], i) => pieces[i]?.[0] === text && pieces[i][1] === marked);
    if (!kept) parts.written.replaceChildren();
    for (const [text, marked] of pieces.slice(kept ? parts.pieces.length : 0)) {
      const word = text.trimStart();
      parts.written.append(marked ? text.slice(0, text.length - word.length) : text);
      if (marked) parts.written.append(node("mark", {}, word));
    }
    parts.pieces = pieces;
    parts.bar.style.visibility = share === null ? "hidden" : "visible";
    parts.fill.style.width = `${100 * (share ?? 0)}%`;
    parts.readout.textContent = readout;
  };

  const draw = (shown) => {
    caption.textContent = shown.caption;
    const same = columns.length === shown.columns.length && columns.every((c, i) => c.title === shown.columns[i].title);
    if (!same) {
      columns = shown.columns.map(makeColumn);
      row.replaceChildren(...columns.map((parts) => parts.section));
    }
    columns.forEach((parts, i) => fill(parts, shown.columns[i], shown.prompt));
    if (status.textContent !== shown.status) status.textContent = shown.status;
  };

  const recorded = model.get("recorded") ?? [];
  if (recorded.length > 1) {
    const slider = node("input", { type: "range", min: "0", max: `${recorded.length - 1}`, step: "1" });
    const choose = () => {
      const shown = recorded[slider.valueAsNumber];
      slider.setAttribute("aria-valuetext", shown.caption);
      draw(shown);
    };
    slider.value = `${recorded.findIndex((shown) => shown.caption === model.get("shown").caption)}`;
    slider.addEventListener("input", choose);
    picker.append(node("label", {}, `Recorded runs (${recorded.length}) `, slider));
  }

  const update = () => draw(model.get("shown"));
  model.on("change:shown", update);
  update();
  return dispose;
};

export default { render };
