"""How the chat page looks: theme, style sheet, and the few lines of script that Gradio has no event for.

Used by `layout`. System fonts, so that the page asks no other host for anything.
"""

import gradio as gr

# Single dollars are left alone: in "it costs $5, not $6" they are money.
LATEX_DELIMITERS: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]

PLACEHOLDER = """Ask a question below. The conversation is kept in this browser.

<small>Enter sends · Shift+Enter breaks the line · Escape stops</small>"""

CSS = """
:root { --hair: color-mix(in srgb, currentColor 14%, transparent); }
footer { display: none !important; }

/* One screen: the chat scrolls, the rest stays in sight. */
html, body { height: 100dvh; overflow: hidden; }
gradio-app, .gradio-container, .gradio-container > .main, .gradio-container .sidebar-parent,
.gradio-container main.contain, .gradio-container main.contain > .column { min-height: 0 !important; }
gradio-app { height: 100dvh; }
.gradio-container > .main { height: 100%; max-width: none !important; padding: 0 !important; }
.gradio-container .sidebar-parent { height: 100%; padding: 0 !important; }
.gradio-container main.contain { height: 100%; width: auto; min-width: 0; padding: 0.9rem 1rem 0.9rem !important; }
.gradio-container main.contain > .column { height: 100%; max-width: 54rem; width: 100%; margin: 0 auto; gap: 0.5rem;
  flex-wrap: nowrap; }

#top { align-items: center; flex-wrap: nowrap; gap: 1rem; flex: 0 0 auto; padding-right: 2rem; }
#title { flex: 1 1 auto !important; min-width: 0 !important; padding: 0; }
#title h1 { font-size: 1.3rem; font-weight: 650; letter-spacing: -0.01em; margin: 0; line-height: 1.4; }
#title p { margin: 0; color: var(--body-text-color-subdued); font-size: 0.9rem; line-height: 1.4; }
#picker { flex: 0 1 19rem !important; min-width: 0 !important; gap: 0.2rem; }
#picker .html-container { padding: 0 0.2rem; }
#picker .health { font-size: 0.8rem; line-height: 1.4; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
#picker .health::before { content: ""; display: inline-block; width: 0.5rem; height: 0.5rem; border-radius: 50%;
  margin-right: 0.4rem; background: #c2410c; }
#picker .health.alive::before { background: #15803d; }
.dark #picker .health.alive::before { background: #4ade80; }

#chat { flex: 1 1 0 !important; height: auto !important; min-height: 0 !important; border: 0; background: transparent; }
#chat .wrapper > .top-panel { position: static; align-self: flex-end; flex: 0 0 auto; border: 0; box-shadow: none;
  background: transparent; }
#chat .placeholder { text-align: center; color: var(--body-text-color-subdued); }
#chat .message { line-height: 1.6; }
#chat table { border: 0; padding: 0; border-collapse: collapse;
  display: block; width: fit-content; max-width: 100%; overflow-x: auto; }
#chat th, #chat td { border: 1px solid var(--hair); padding: 0.3rem 0.7rem; word-break: normal;
  overflow-wrap: normal; }
#chat th { font-weight: 600; }
.dark #chat .token.comment { color: #94a3b8; }
#chat .katex-display { overflow-x: auto; overflow-y: hidden; padding: 0.2rem 0; }

#line { flex: 0 0 auto; padding: 0; }
#line .html-container { padding: 0 0.2rem; }
#line .notice { font-size: 0.8rem; line-height: 1.4; min-height: 1.15rem; color: var(--body-text-color-subdued);
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
#line .notice.bad { color: #b42318; font-weight: 550; }
.dark #line .notice.bad { color: #fda29b; }
#question { flex: 0 0 auto; }
#question .input-container { background: var(--input-background-fill); align-items: flex-end; }
#question .input-container button { margin: 0.3rem; }
#question textarea { padding: 0.6rem 0.8rem; font-size: 1rem; }

@media (min-width: 1000px) {
  .gradio-container .sidebar-parent:has(#settings.open) { padding-right: 300px !important; }
}
@media (max-width: 640px) {
  .gradio-container main.contain { padding: 0.5rem 0.6rem !important; }
  #top { padding-right: 1.8rem; }
  #title { flex: 0 0 auto !important; width: auto !important; }
  #title p { display: none; }
  #picker { flex: 1 1 0 !important; }
}
"""

# The style sheet stands in the head because Gradio rewrites the selectors of `css=` so that rules for the page's frame
# in media queries match nothing. Escape presses the Stop button of the question box.
HEAD = (
    f"<style>{CSS}</style>"
    + """
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>
(function () {
  const look = localStorage.getItem("vicuna-look");
  const restore = () => look && document.body.classList.toggle("dark", look === "dark");
  document.addEventListener("DOMContentLoaded", restore);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelector("#question .stop-button")?.click();
  });
})();
</script>
"""
)

# The browser's storage is an object, and the server takes only text and numbers (`fields`).
INPUTS_JS = """(...values) => values.slice(0, COUNT).map(
  (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : value))"""

TOGGLE_DARK_JS = """() => {
  const isDark = document.body.classList.toggle("dark");
  localStorage.setItem("vicuna-look", isDark ? "dark" : "light");
}"""

# The file is made in the browser, so the server writes and exposes none.
DOWNLOAD_JS = """(file) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file.text], { type: "text/plain;charset=utf-8" }));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


def inputs_js(count: int) -> str:
    """The script that makes text of what an event sends; the first `count` values are its inputs."""
    return INPUTS_JS.replace("COUNT", str(count))


def theme() -> gr.themes.Base:
    """Quiet greys, one green accent, the system's own fonts."""
    return gr.themes.Base(
        primary_hue="emerald",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
