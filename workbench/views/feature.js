// The dashboard of one feature: facts, distributions, examples in one of three choices, short tables.

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  const alone = model.get("alone") ?? false;
  // The name of the radio buttons. Each widget is a module of its own, so that a count would not keep two apart.
  const board = `wb-board-${Math.random()}`;
  const title = node("h3", { class: "wb-name", tabindex: "-1" });
  const flags = node("span", { class: "wb-flags" });
  const facts = node("div", { class: "wb-facts" });
  const bars = node("div", { class: "wb-pair" });
  const choice = node("fieldset", { class: "wb-choice" });
  const note = node("p", { class: "wb-quiet" });
  const texts = node("div", {});
  const readout = node("div", { class: "wb-readout wb-quiet", "aria-live": "polite" });
  const examples = node("section", { class: "wb-examples", "aria-label": "Examples" }, choice, note, texts, readout);
  const listings = node("div", { class: "wb-listings" });
  body.append(node("div", { class: "wb-head" }, title, flags), facts, bars, examples, listings);

  const open = (number) => {
    model.set("number", number);
    model.save_changes();
  };

  const fact = ({ label, value, note: more }) => node("div", { class: "wb-fact" },
    node("dt", { class: "wb-quiet" }, label), node("dd", {}, node("b", {}, value), ` ${more}`));

  const chart = ({ title: name, heights, names, ends }) => {
    const tallest = names[heights.indexOf(Math.max(...heights))];
    const columns = heights.map((height, i) => {
      const bar = node("i", {});
      bar.style.height = `${100 * height}%`;
      return node("span", { title: names[i] }, bar);
    });
    const told = `${name}; tallest at ${tallest}`;
    const picture = node("div", { class: "wb-bars", role: "img", "aria-label": told }, ...columns);
    return node("figure", {}, node("figcaption", { class: "wb-quiet" }, name), picture,
      node("div", { class: "wb-ends wb-quiet", "aria-hidden": "true" }, ...ends.map((end) => node("span", {}, end))));
  };

  const listing = ({ title: name, head, rows, features }) => {
    const cell = (text, column, row) => {
      if (column || !features.length || alone) return node("td", {}, text);
      const button = node("button", { type: "button", "aria-label": `Open feature ${text}` }, text);
      button.addEventListener("click", () => open(features[row]));
      return node("td", {}, button);
    };
    return node("table", { "aria-label": name, class: features.length ? "wb-others" : "" },
      node("caption", {}, name),
      node("thead", {}, node("tr", {}, ...head.map((text) => node("th", { scope: "col", class: "wb-quiet" }, text)))),
      node("tbody", {}, ...rows.map((row, i) => node("tr", {}, ...row.map((text, column) => cell(text, column, i))))));
  };

  const drawTexts = () => {
    const { sections, scale } = model.get("card");
    const section = sections[model.get("section")];
    choice.querySelectorAll("input").forEach((input, i) => { input.checked = i === model.get("section"); });
    examples.hidden = !section;
    if (!section) return;
    const hint = "Point at a token, or use the arrow keys.";
    note.replaceChildren(`${section.note}. `, ...swatches("activation", [0, 0.5, 1], scale));
    texts.replaceChildren(...section.groups.flatMap(({ title: heading, rows }) => {
      const grid = tokenGrid(readout, hint, () => {});
      grid.draw({ rows, scale, label: "activation", name: heading || section.name }, []);
      const none = rows.length ? [] : [node("p", { class: "wb-quiet" }, "none among the examples drawn")];
      return [...(heading ? [node("h4", {}, heading)] : []), grid.element, ...none];
    }));
    readout.textContent = hint;
  };

  const draw = () => {
    const card = model.get("card");
    const inside = body.contains(document.activeElement);
    title.textContent = card.title;
    flags.replaceChildren(...card.flags.map((flag) => node("span", {}, flag)));
    facts.replaceChildren(node("dl", {}, ...card.facts.map(fact)));
    bars.replaceChildren(...card.bars.map(chart));
    choice.replaceChildren(node("legend", {}, "Examples"), ...card.sections.map(({ name }, i) => {
      const input = node("input", { type: "radio", name: board });
      input.addEventListener("change", () => {
        model.set("section", i);
        model.save_changes();
      });
      return node("label", {}, input, name);
    }));
    drawTexts();
    listings.replaceChildren(...card.listings.map(listing));
    if (inside) title.focus(); // what had the focus is gone
  };

  model.on("change:card", draw);
  model.on("change:section", drawTexts);
  draw();
  return dispose;
};

export default { render };
