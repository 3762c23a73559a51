// Documents of shaded tokens, one of which can be picked.

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  const caption = node("div", { class: "wb-caption" });
  const legend = node("div", { class: "wb-legend wb-quiet" });
  const readout = node("div", { class: "wb-readout wb-quiet", "aria-live": "polite" });
  const grid = tokenGrid(readout, "Point at a token, or use the arrow keys.", (place) => {
    model.set("picked", place);
    model.save_changes();
  });
  body.append(caption, legend, grid.element, readout);

  const draw = () => {
    const [rows, scale, label] = ["rows", "scale", "label"].map((name) => model.get(name));
    caption.textContent = model.get("caption");
    const negative = rows.some((row) => row.values.some((value) => value < 0));
    legend.replaceChildren(...swatches(label, [...(negative ? [-1, -0.5] : []), 0, 0.5, 1], scale));
    grid.draw({ rows, label, scale, name: model.get("caption") || `Tokens by ${label}` }, model.get("picked"));
  };

  for (const name of ["rows", "scale", "label", "caption"]) model.on(`change:${name}`, draw);
  model.on("change:picked", () => grid.pick(model.get("picked")));
  draw();
  return dispose;
};

export default { render };
