// Numbers that change, each with a small curve; tiles for one row of them, a table for several.

const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, attributes, ...children) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

// One number and its curve; `show` writes what it is now.
const makeReading = () => {
  const number = node("div", { class: "wb-number" });
  const [area, line, end] = ["wb-area", "wb-line", "wb-end"].map((name) => shape("path", { class: name }));
  const box = { class: "wb-curve", viewBox: "0 0 1 1", preserveAspectRatio: "none", role: "img" };
  const picture = shape("svg", box, area, line, end);
  const show = ({ label, value, points, told }) => {
    if (number.textContent !== value) number.textContent = value;
    const places = points.map(([x, y]) => `${x} ${1 - y}`);
    const path = places.length ? `M${places.join("L")}` : "";
    const [first, last] = [points[0], points.at(-1)];
    line.setAttribute("d", path);
    area.setAttribute("d", path && `${path}L${last[0]} 1L${first[0]} 1Z`);
    end.setAttribute("d", path && `M${places.at(-1)}h0`);
    picture.setAttribute("aria-label", told || `${label}, no curve yet`);
  };
  return { number, picture, show };
};

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  const fill = node("div", { class: "wb-fill" });
  const count = node("span", {});
  const status = node("span", { class: "wb-quiet", role: "status", "aria-live": "polite" });
  const place = node("div", {});
  body.append(
    node("div", { class: "wb-track", "aria-hidden": "true" }, fill),
    node("div", { class: "wb-state" }, count, status), place);
  let built = "[]";
  let shown = [];

  const tile = ({ label }) => {
    const { number, picture, show } = makeReading();
    shown.push(show);
    return node("section", { class: "wb-tile", "aria-label": label },
      node("div", { class: "wb-quiet" }, label), number, picture);
  };
  const cell = () => {
    const { number, picture, show } = makeReading();
    shown.push(show);
    return node("td", {}, number, picture);
  };
  const build = ({ rows, common }) => {
    shown = [];
    if (rows.length === 1) {
      place.replaceChildren(node("div", { class: "wb-tiles" }, ...rows[0].readings.map(tile), ...common.map(tile)));
      return;
    }
    if (!rows.length) return;
    const heads = rows[0].readings.map(({ label }) => node("th", { scope: "col" }, label));
    const lines = rows.map(({ name, readings }) =>
      node("tr", {}, node("th", { scope: "row" }, name), ...readings.map(cell)));
    place.replaceChildren(
      node("table", { class: "wb-table" }, node("tr", {}, node("td", {}), ...heads), ...lines),
      node("div", { class: "wb-tiles" }, ...common.map(tile)));
  };

  const draw = () => {
    const seen = model.get("seen");
    fill.style.width = `${100 * seen.share}%`;
    count.textContent = seen.count;
    if (status.textContent !== seen.status) status.textContent = seen.status;
    const readings = [...seen.rows.flatMap((row) => row.readings), ...seen.common];
    const now = JSON.stringify([seen.rows.map(({ name }) => name), readings.map(({ label }) => label)]);
    if (now !== built) build(seen);
    built = now;
    readings.forEach((reading, i) => shown[i](reading));
  };

  model.on("change:seen", draw);
  draw();
  return dispose;
};

export default { render };
