// Short marked paragraphs.

const render = ({ model, el }) => {
  const { body, dispose } = frame(model, el);
  body.setAttribute("role", "status");
  let drawn = [];

  const draw = () => {
    const notes = model.get("notes");
    const kept = drawn.every((note, i) => notes[i]?.text === note.text);
    if (!kept) body.replaceChildren();
    for (const { kind, text, edge } of notes.slice(kept ? drawn.length : 0)) {
      const note = node("p", { class: `wb-note wb-note-${kind}` }, text);
      if (edge) note.style.borderLeftColor = edge;
      body.append(note);
    }
    drawn = notes;
  };

  model.on("change:notes", draw);
  draw();
  return dispose;
};

export default { render };
