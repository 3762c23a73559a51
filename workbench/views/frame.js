// What every view's module begins with; the view's own file follows and ends with `export default { render }`.

// Make an element. Strings among the children become text nodes: token text is never HTML.
const node = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

// Prepare `el`: an alert area that shows the `error` trait, a body to draw in, and the keyboard guard.
const frame = (model, el) => {
  const alert = node("div", { class: "wb-error", role: "alert" });
  const body = node("div", { class: "wb-body" });
  el.classList.add("wb");
  el.append(alert, body);

  const showError = () => { alert.textContent = model.get("error"); };
  model.on("change:error", showError);
  showError();

  // A notebook's one-letter commands must not see keys meant for a control: "d d" would delete the cell.
  // Saving passes. The listener is on the whole panel, whose other controls are not ours to change.
  const stop = (event) => {
    if (!((event.ctrlKey || event.metaKey) && event.key === "s")) event.stopPropagation();
  };
  let host = null;
  let waiting = 0;
  const guard = () => {
    if (!el.isConnected) { waiting = requestAnimationFrame(guard); return; }
    host = el.closest(".workbench-panel") ?? el;
    host.addEventListener("keydown", stop);
    // ipywidgets leaves the handle of a slider without a name.
    for (const handle of host.querySelectorAll(".widget-slider [role=slider]:not([aria-label])")) {
      handle.setAttribute("aria-label", handle.closest(".widget-slider").querySelector("label").textContent);
    }
  };
  guard();

  const dispose = () => {
    cancelAnimationFrame(waiting);
    host?.removeEventListener("keydown", stop);
  };
  return { body, dispose };
};

