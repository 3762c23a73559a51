// All features: a canvas of points, a table of which only the lines in sight exist, and one search for both.

const LINE = 26; // height of a line of the table in CSS pixels
const LOGGED = ["density"]; // axes by the logarithm
const REACH = 14; // how near the pointer must be to a point, in CSS pixels

const worded = (name) => name.replaceAll("_", " ");
const written = (value) => {
  if (!Number.isFinite(value)) return "none";
  if (value === 0) return "0";
  return (Math.abs(value) < 0.9e-4 ? value.toExponential(1) : `${+value.toPrecision(3)}`).replaceAll("-", "−");
};

// A widget sends a DataView, a file holds base64.
const floats = (sent) => {
  const { buffer, byteOffset, byteLength } = sent;
  if (typeof sent !== "string") return new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
  return new Float32Array(Uint8Array.from(atob(sent), (letter) => letter.charCodeAt(0)).buffer);
};

// The scale of an axis: `at(value)` is 0 to 1, NaN for what has no place; `ticks` are values.
const axis = (values, name) => {
  const logged = LOGGED.includes(name);
  const bent = logged ? Math.log10 : (value) => value;
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value) || (logged && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) [low, high] = logged ? [0.1, 1] : [0, 1];
  if (low === high) [low, high] = logged ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const [from, span] = [bent(low), bent(high) - bent(low)];
  const ticks = [];
  if (logged) {
    const factors = span > 2 ? [1] : [1, 2, 5];
    for (let power = Math.floor(from); power <= bent(high); power++)
      ticks.push(...factors.map((factor) => factor * 10 ** power));
  } else {
    const rough = span / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough);
    for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(i * step);
  }
  return {
    at: (value) => (logged && !(value > 0) ? NaN : (bent(value) - from) / span),
    ticks: ticks.filter((tick) => tick >= low && tick <= high),
    logged,
  };
};

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  // Keeps the ids of lines apart. Each widget is a module of its own, so that a count would not.
  const self = `wb-browser-${Math.random()}`;
  const names = model.get("names");
  const all = floats(model.get("numbers"));
  const n = all.length / names.length;
  const column = Object.fromEntries(names.map((name, i) => [name, all.subarray(i * n, (i + 1) * n)]));
  const text = Object.fromEntries(Object.entries(model.get("texts")).map(([name, lines]) => [name, lines.split("\n")]));
  const listed = ["feature", ...model.get("listed")];
  const told = listed.filter((name) => name in text);
  const lines = Array.from({ length: n }, (_, i) =>
    [`#${i}`, ...told.map((name) => text[name][i])].join("\n").toLowerCase());
  let ranked = Uint32Array.from({ length: n }, (_, i) => i); // all features in the order of the table
  let found = ranked; // those that the search leaves
  let matches = new Uint8Array(n).fill(1);

  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const about = (i) => {
    const axes = [...new Set([model.get("across"), model.get("up")])];
    return [`Feature ${i}`, ...told.map((name) => text[name][i]).filter(Boolean),
      ...axes.map((name) => `${worded(name)} ${written(column[name][i])}`)].join(" · ");
  };

  // The search.
  const hint = "Label, token or #number";
  const search = node("input", { type: "search", "aria-label": "Search features", placeholder: hint });
  const count = node("span", { class: "wb-quiet", role: "status" });
  const choices = ["up", "across"].map((which) => {
    const select = node("select", {}, ...names.map((name) => node("option", { value: name }, worded(name))));
    select.addEventListener("change", () => set(which, select.value));
    model.on(`change:${which}`, () => plot());
    return { which, select, label: node("label", {}, which === "up" ? "Up" : "Across", select) };
  });
  const bar = node("div", { class: "wb-search" }, search, count, ...choices.map(({ label }) => label));

  // The picture.
  const canvas = node("canvas", { "aria-hidden": "true" });
  const rings = ["wb-ring wb-open", "wb-ring"].map((name) => node("div", { class: name, hidden: "" }));
  const field = node("div", { class: "wb-field", tabindex: "0", role: "application" }, canvas, ...rings);
  const scales = ["wb-up wb-quiet", "wb-across wb-quiet"].map((name) =>
    node("div", { class: name, "aria-hidden": "true" }));
  const readout = node("div", { class: "wb-readout wb-quiet", "aria-live": "polite" });
  const px = new Float32Array(n);
  const py = new Float32Array(n);
  let pointed = -1;
  let absent = 0; // features that an axis has no place for

  const rest = () => {
    const opens = model.get("alone") ? "a file holds the page of one feature" : "a click or Enter opens it";
    const hint = `Point at a feature or use the arrow keys; ${opens}.`;
    readout.textContent = absent ? `${hint} Without a place on these axes: ${absent.toLocaleString("en")}.` : hint;
  };
  const mark = (ring, i) => {
    ring.hidden = !(i >= 0 && Number.isFinite(px[i]) && Number.isFinite(py[i]));
    if (!ring.hidden) ring.style.transform = `translate(${px[i]}px, ${py[i]}px)`;
  };
  const point = (i) => {
    pointed = i;
    mark(rings[1], i);
    if (i < 0) rest();
    else readout.textContent = about(i);
  };
  const paint = () => {
    const { clientWidth: width, clientHeight: height } = field;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const size = n > 5000 ? 2 : n > 500 ? 3 : 5;
    const style = getComputedStyle(field);
    const dots = (kind, colour, alpha) => {
      [context.fillStyle, context.globalAlpha] = [colour, alpha];
      for (let i = 0; i < n; i++) {
        if (matches[i] === kind) context.fillRect(px[i] - size / 2, py[i] - size / 2, size, size);
      }
    };
    dots(0, style.color, 0.12);
    dots(1, `rgb(${style.getPropertyValue("--wb-plus")})`, 0.6);
    mark(rings[0], model.get("chosen"));
  };
  let waiting = 0;
  const repaint = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(paint);
  };
  const plot = () => {
    const [across, up] = [model.get("across"), model.get("up")];
    for (const { which, select } of choices) select.value = model.get(which);
    const [x, y] = [axis(column[across], across), axis(column[up], up)];
    const [width, height, edge] = [field.clientWidth, field.clientHeight, 8];
    const toX = (share) => edge + share * (width - 2 * edge);
    const toY = (share) => height - edge - share * (height - 2 * edge);
    for (let i = 0; i < n; i++) {
      px[i] = toX(x.at(column[across][i]));
      py[i] = toY(y.at(column[up][i]));
    }
    absent = px.reduce((sum, place, i) => sum + Number.isNaN(place + py[i]), 0);
    const tick = (value, side, place) => {
      const label = node("span", {}, written(value));
      label.style[side] = `${place}px`;
      return label;
    };
    scales[0].replaceChildren(...y.ticks.map((value) => tick(value, "top", toY(y.at(value)))));
    scales[1].replaceChildren(...x.ticks.map((value) => tick(value, "left", toX(x.at(value)))));
    const logged = (scale, name) => `${worded(name)}${scale.logged ? ", by the logarithm" : ""}`;
    field.setAttribute("aria-label", `Features: ${logged(x, across)}, against ${logged(y, up)}`);
    point(-1);
    repaint();
  };
  // The feature in sight that `cost(dx, dy)` makes least; Infinity is out of reach.
  const nearest = (x, y, cost) => {
    let [best, least] = [-1, Infinity];
    for (let i = 0; i < n; i++) {
      if (!matches[i]) continue;
      const price = cost(px[i] - x, py[i] - y);
      if (price < least) [best, least] = [i, price];
    }
    return best;
  };
  const under = (event) => {
    const box = field.getBoundingClientRect();
    return nearest(event.clientX - box.left, event.clientY - box.top,
      (dx, dy) => (dx * dx + dy * dy <= REACH * REACH ? dx * dx + dy * dy : Infinity));
  };
  field.addEventListener("pointermove", (event) => point(under(event)));
  field.addEventListener("pointerleave", () => point(-1));
  field.addEventListener("focus", () => { if (field.matches(":focus-visible")) point(start()); });
  field.addEventListener("blur", () => point(-1));
  field.addEventListener("click", (event) => {
    const i = under(event);
    if (i >= 0) set("chosen", i);
  });
  const start = () => {
    const chosen = model.get("chosen");
    return matches[chosen] && Number.isFinite(px[chosen] + py[chosen]) ? chosen : nearest(0, 0, (dx, dy) => dx + dy);
  };
  field.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const from = pointed >= 0 ? pointed : start();
    if (way && from >= 0) {
      const next = nearest(px[from], py[from], (dx, dy) => {
        const ahead = dx * way[0] + dy * way[1];
        const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        return ahead > 0.01 && aside <= 2 * ahead ? ahead + 2 * aside : Infinity;
      });
      point(next >= 0 ? next : from);
    } else if ((event.key === "Enter" || event.key === " ") && from >= 0) set("chosen", from);
    else return;
    event.preventDefault();
  });

  // The table.
  const widths = listed.slice(1).map((name) => (name in text ? "minmax(90px, 1.6fr)" : "minmax(72px, 1fr)"));
  const template = ["72px", ...widths].join(" ");
  const heads = listed.map((name) => {
    const button = node("button", { type: "button" }, worded(name));
    button.addEventListener("click", () => {
      const again = model.get("order") === name;
      model.set("falling", again ? !model.get("falling") : !(name in text || name === "feature"));
      set("order", name);
    });
    return node("div", { role: "columnheader", class: name in text ? "wb-text" : "" }, button);
  });
  const header = node("div", { role: "row", class: "wb-row wb-top", "aria-rowindex": "1" }, ...heads);
  const sheet = node("div", { class: "wb-sheet", role: "rowgroup" });
  const table = node("div", {
    class: "wb-scroll", role: "grid", tabindex: "0", "aria-label": "Table of features",
  }, header, sheet);
  let cursor = 0; // a place in `found`

  const line = (place) => {
    const i = found[place];
    const cells = listed.map((name) => {
      const value = name === "feature" ? `${i}` : name in text ? text[name][i] : written(column[name][i]);
      return node("div", { role: "gridcell", ...(name in text ? { title: value, class: "wb-text" } : {}) }, value);
    });
    const row = node("div", {
      role: "row", class: "wb-row", id: `${self}-${place}`, "aria-rowindex": `${place + 2}`, "data-place": `${place}`,
      "aria-selected": `${i === model.get("chosen")}`,
    }, ...cells);
    row.style.gridTemplateColumns = template;
    row.style.transform = `translateY(${place * LINE}px)`;
    if (place === cursor) row.classList.add("wb-cursor");
    return row;
  };
  const fill = () => {
    const first = Math.max(Math.floor(table.scrollTop / LINE) - 2, 0);
    const last = Math.min(first + Math.ceil(table.clientHeight / LINE) + 4, found.length);
    sheet.style.height = `${found.length * LINE}px`;
    sheet.replaceChildren(...Array.from({ length: Math.max(last - first, 0) }, (_, k) => line(first + k)));
    if (found.length) table.setAttribute("aria-activedescendant", `${self}-${cursor}`);
    else table.removeAttribute("aria-activedescendant");
  };
  const go = (place) => {
    cursor = Math.min(Math.max(place, 0), Math.max(found.length - 1, 0));
    const [top, room] = [cursor * LINE, table.clientHeight - header.offsetHeight];
    if (top < table.scrollTop) table.scrollTop = top;
    else if (top + LINE > table.scrollTop + room) table.scrollTop = top + LINE - room;
    fill();
  };
  const follow = () => {
    const place = found.indexOf(model.get("chosen"));
    if (place < 0) fill();
    else go(place);
  };
  table.addEventListener("scroll", fill);
  table.addEventListener("click", (event) => {
    const place = event.target.closest?.("[data-place]")?.dataset.place;
    if (place === undefined) return;
    cursor = Number(place);
    set("chosen", found[cursor]);
  });
  table.addEventListener("keydown", (event) => {
    if (event.target !== table) return; // the buttons of the head have keys of their own
    const page = Math.max(Math.floor(table.clientHeight / LINE) - 2, 1);
    const goal = {
      ArrowDown: cursor + 1, ArrowUp: cursor - 1, PageDown: cursor + page, PageUp: cursor - page,
      Home: 0, End: found.length - 1,
    }[event.key];
    if (goal !== undefined) go(goal);
    else if ((event.key === "Enter" || event.key === " ") && found.length) set("chosen", found[cursor]);
    else return;
    event.preventDefault();
  });

  const filter = () => {
    const words = model.get("query").toLowerCase().split(/\s+/).filter(Boolean);
    matches = Uint8Array.from(lines, (of) => words.every((word) => of.includes(word)));
    found = ranked.filter((i) => matches[i]);
    const [left, total] = [found.length.toLocaleString("en"), n.toLocaleString("en")];
    count.textContent = words.length ? `${left} of ${total} features` : `${total} features`;
    table.setAttribute("aria-rowcount", `${found.length + 1}`);
    [cursor, table.scrollTop] = [0, 0];
    fill();
    point(-1);
    repaint();
  };
  const sort = () => {
    const [name, sign] = [model.get("order"), model.get("falling") ? -1 : 1];
    heads.forEach((head, i) => {
      const state = listed[i] !== name ? "none" : sign < 0 ? "descending" : "ascending";
      head.setAttribute("aria-sort", state);
    });
    const key = name === "feature" ? (i) => i : name in text ? (i) => text[name][i] : (i) => column[name][i];
    const compare = (a, b) => {
      const [left, right] = [key(a), key(b)];
      const [noLeft, noRight] = [Number.isNaN(left), Number.isNaN(right)]; // last either way
      if (noLeft || noRight) return noLeft - noRight || a - b;
      return left < right ? -sign : left > right ? sign : a - b;
    };
    ranked = Uint32Array.from({ length: n }, (_, i) => i).sort(compare);
    filter();
  };

  search.addEventListener("input", () => set("query", search.value));
  model.on("change:query", () => {
    if (search.value !== model.get("query")) search.value = model.get("query");
    filter();
  });
  let due = false; // both of these may change at once
  const resort = () => {
    if (!due) queueMicrotask(() => { due = false; sort(); });
    due = true;
  };
  for (const name of ["order", "falling"]) model.on(`change:${name}`, resort);
  model.on("change:chosen", () => {
    follow();
    mark(rings[0], model.get("chosen"));
  });

  body.append(bar, node("div", { class: "wb-plot" }, scales[0], field, scales[1]), readout, table);
  header.style.gridTemplateColumns = template;
  search.value = model.get("query");
  sort();
  const sized = new ResizeObserver(() => {
    plot();
    follow();
  });
  sized.observe(field);
  // The canvas does not follow the theme by itself.
  const themed = new MutationObserver(repaint);
  themed.observe(document.body, { attributes: true });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", repaint);
  return () => {
    sized.disconnect();
    themed.disconnect();
    scheme.removeEventListener("change", repaint);
    cancelAnimationFrame(waiting);
    dispose();
  };
};

export default { render };
