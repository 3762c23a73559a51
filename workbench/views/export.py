"""One self-contained HTML file per picture: state, modules and styles inside, nothing fetched.

The content security policy forbids every request, so that the file is as private as it is portable; the
modules come from ``data:`` addresses inside it.
"""

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.views.base import View

POLICY = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; base-uri 'none'"

# The whole of the widget protocol that a module may use: what it sets stays in the page.
LOADER = """
const parts = JSON.parse(document.getElementById("parts").textContent);
const model = (state) => {
  const listeners = {};
  return {
    get: (name) => state[name],
    set: (name, value) => {
      state[name] = value;
      for (const listener of listeners[`change:${name}`] ?? []) listener();
    },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: () => {},
    save_changes: () => {},
    send: () => {},
  };
};
for (const [i, { state, module }] of parts.entries()) {
  const { default: view } = await import(`data:text/javascript;charset=utf-8;base64,${module}`);
  await view.render({ model: model(state), el: document.getElementById(`view-${i}`) });
}
"""


def page(views: Sequence["View"], title: str, description: str) -> str:
    """Return the file that shows ``views`` one below the other; without scripts it shows their static form."""
    parts = [
        {"state": view.export_state(), "module": base64.b64encode(str(view._esm).encode()).decode()} for view in views
    ]
    # "<" would let a token's text close the script element.
    data = json.dumps(parts, sort_keys=True, allow_nan=False).replace("<", "\\u003c")
    styles = "\n".join(dict.fromkeys(str(view._css) for view in views))
    places = "\n".join(f'<div id="view-{i}"></div>' for i in range(len(views)))
    heading = f"<h1>{escape(title)}</h1>" if title else ""
    static = "\n".join(view.static_html() for view in views)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title or description)}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 960px; padding: 24px; font-family: system-ui, sans-serif; }}
h1 {{ font-size: 18px; font-weight: 600; margin: 0 0 16px; }}
{styles}
</style>
</head>
<body>
<main>
{heading}
{places}
<noscript>{static}</noscript>
</main>
<script type="application/json" id="parts">{data}</script>
<script type="module">{LOADER}</script>
</body>
</html>
"""
