"""The page on which one prompt is continued by all models side by side, as they write."""

from __future__ import annotations

from collections.abc import Sequence

from tp_ext.page.style import STYLE
from tp_ext.page.values import escaped

_STYLE = """
form { display: grid; gap: .75rem; max-width: none; }
textarea, input { font: inherit; color: inherit; background: var(--field); border: 1px solid var(--line); border-radius: 6px;
  padding: .5rem .7rem; width: 100%; }
.settings { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .75rem; }
.settings label { font-size: .85rem; color: var(--faint); }
button { font: inherit; padding: .5rem 1.2rem; border: 1px solid var(--line); border-radius: 6px; background: var(--link);
  color: var(--paper); cursor: pointer; } button.quiet { background: none; color: var(--link); }
button:disabled { opacity: .5; cursor: default; }
.models { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; margin-top: 1.5rem; }
.models section { border: 1px solid var(--line); border-radius: 6px; padding: .25rem 1rem 1rem; }
.models h2 { border: 0; margin: .5rem 0; padding: 0; font-size: 1rem; }
.text { white-space: pre-wrap; min-height: 3rem; } .text .prompt { color: var(--faint); }
.said { font-size: .85rem; color: var(--faint); min-height: 1.3rem; } .wrong { color: var(--c4); }
"""

_SCRIPT = """
const form = document.forms[0], go = document.getElementById("go"), halt = document.getElementById("halt");
let running = null;
async function complete(section, signal) {
  const text = section.querySelector(".text"), said = section.querySelector(".said"), began = performance.now();
  const prompt = form.prompt.value;
  text.replaceChildren(Object.assign(document.createElement("span"), {className: "prompt", textContent: prompt}));
  const added = text.appendChild(document.createElement("span"));
  added.className = "added"; said.textContent = "waiting"; said.classList.remove("wrong");
  const headers = {"Content-Type": "application/json"};
  if (form.token && form.token.value) headers.Authorization = "Bearer " + form.token.value;
  const asked = {model: section.dataset.model, prompt, stream: true, max_tokens: Number(form.max_tokens.value),
    temperature: Number(form.temperature.value), top_p: Number(form.top_p.value),
    repetition_penalty: Number(form.repetition_penalty.value), seed: Number(form.seed.value)};
  try {
    const answer = await fetch("/v1/completions", {method: "POST", headers, body: JSON.stringify(asked), signal});
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const {value, done} = await reader.read();
      if (done) break;
      const events = (rest + value).split("\\n\\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") continue;
        const chunk = JSON.parse(data);
        added.append(chunk.choices[0].text);
        if (chunk.usage) {
          const seconds = (performance.now() - began) / 1000, tokens = chunk.usage.completion_tokens;
          said.textContent = `${tokens} tokens, ${(tokens / seconds).toFixed(1)} a second, ended by ` +
            `${chunk.choices[0].finish_reason}`;
        }
      }
    }
  } catch (error) {
    said.textContent = error.name === "AbortError" ? "stopped" : error.message;
    said.classList.toggle("wrong", error.name !== "AbortError");
  }
}
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  running = new AbortController(); go.disabled = true; halt.disabled = false;
  await Promise.all([...document.querySelectorAll("[data-model]")].map((each) => complete(each, running.signal)));
  go.disabled = false; halt.disabled = true;
});
halt.addEventListener("click", () => running && running.abort());
form.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !go.disabled) form.requestSubmit();
});
"""

_SETTINGS = (
    ("max_tokens", "new tokens", 'type="number" min="1" max="4096" value="64"'),
    ("temperature", "temperature", 'type="number" min="0" max="10" step="0.1" value="0.7"'),
    ("top_p", "top p", 'type="number" min="0.01" max="1" step="0.01" value="0.9"'),
    ("repetition_penalty", "repetition penalty", 'type="number" min="0.5" max="3" step="0.05" value="1.1"'),
    ("seed", "seed", 'type="number" min="0" value="0"'),
)


def view(models: Sequence[str], asks_token: bool) -> str:
    """The page for models of these names, with a field for the token where the server asks for one."""
    fields = [f'<label>{label}<input name="{name}" {rest}/></label>' for name, label, rest in _SETTINGS]
    if asks_token:
        fields.append('<label>token<input name="token" type="password" autocomplete="off"/></label>')
    sections = [
        f'<section data-model="{escaped(name)}"><h2>{escaped(name)}</h2><div class="text" lang="zh" '
        'aria-live="polite"></div><div class="said"></div></section>' for name in models
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n<title>Continue a text</title>\n'
        f"<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Continue a text</h1>\n<form>\n"
        '<textarea name="prompt" rows="4" aria-label="prompt" required="required">第一条 为了</textarea>\n'
        f'<div class="settings">{"".join(fields)}</div>\n'
        '<div><button id="go">Continue</button> '
        '<button id="halt" class="quiet" type="button" disabled="disabled">Stop</button></div>\n</form>\n'
        f'<div class="models">{"".join(sections)}</div>\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
    )
