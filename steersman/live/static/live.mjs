// @ts-check
// The page: hears the server, has the panels that it asks for, tells it what the person does.

import { Connection } from "./connection.mjs";
import { Facts } from "./facts.mjs";
import { Gates } from "./gates.mjs";
import { capital, parseMoment } from "./moments.mjs";
import { $, Page } from "./page.mjs";
import { Playing } from "./playing.mjs";
import { Values } from "./values.mjs";

/** Panels by the name in `hello`: their modules are loaded when one is asked for. */
const MODULES = {
  picture: "seen", wheel: "wheels", controls: "controls", hands: "hands", chart: "chart", classes: "stream",
  words: "stream", training: "training", say: "texts",
  microphone: "microphone",
};
const CALM_MS = 250; // Between two drawings, for who wants little motion.

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const page = new Page();
const playing = new Playing(page);
/** @type {Map<string, import("./page.mjs").Panel>} */
const panels = new Map(Object.entries({ playing, facts: new Facts(page), gates: new Gates(page), values: new Values(page) }));
/** @type {Map<string, number>} */
const due = new Map();

/** The panels that are not there yet. @param {string[]} names */
async function load(names) {
  const missing = new Set(names.map((name) => MODULES[name]).filter((module) => module && !panels.has(module)));
  for (const module of missing) panels.set(module, new (await import(`./${module}.mjs`)).default(page));
}

const heard = {
  async hello(event) {
    const again = page.hello !== null;
    page.moment = page.hello = null; // What comes meanwhile is of no panel yet.
    await load(event.panels);
    page.hello = event;
    begin();
    for (const panel of panels.values()) panel.begin?.(event);
    if (again) page.say("Connected again");
  },
  error({ error, do: mend }) {
    page.notice(`${capital(error)}: ${mend}`);
  },
  goodbye({ why }) {
    page.say(`The server closed the connection: ${why}`);
  },
};

function begin() {
  const { run, size, source } = page.hello;
  document.title = `${run} \u2013 Steersman`;
  $("run").textContent = run;
  $(page.has("picture") ? "screen" : "seen").append($("said")); // What is hidden is not read aloud.
  $("main").classList.toggle("plain", !size[0] && !page.has("wheel") && source !== "text");
}

async function hear(event) {
  await heard[event.type]?.(event);
  for (const panel of panels.values()) panel.events?.[event.type]?.(event);
}

function hearMoment(buffer) {
  if (!page.hello) return;
  const before = page.moment;
  page.moment = parseMoment(buffer);
  for (const panel of panels.values()) panel.moment?.(page.moment, before);
}

/** What is shown, no oftener than eyes need. */
function frame(now) {
  requestAnimationFrame(frame);
  if (!page.hello) return;
  for (const [name, panel] of panels) {
    if (!panel.show || now < (due.get(name) ?? 0)) continue;
    due.set(name, now + Math.max(panel.every ?? 0, calm.matches ? CALM_MS : 0));
    panel.show(page.moment);
  }
}

let told = Promise.resolve(); // One event after another: the first may wait for its panels.
const connection = new Connection({
  event: (event) => (told = told.then(() => hear(event)).catch((error) => page.notice(String(error)))),
  moment: hearMoment,
  state(name, words, wait = "") {
    $("link").dataset.state = name;
    if ($("link").textContent !== words) $("link").textContent = words; // Read aloud; the seconds are not.
    $("wait").textContent = wait;
    $("main").classList.toggle("stale", name !== "live");
    $("retry").hidden = name !== "lost";
    if (name === "lost") for (const panel of panels.values()) panel.lost?.();
  },
});
page.send = (message) => connection.send(message);

function openHelp() {
  if (!$("help").open) $("help").showModal();
}

addEventListener("keydown", (event) => {
  const target = /** @type {Element} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("select, textarea, dialog")) return;
  if (event.key === "?") openHelp();
  else if (event.key === " " && !target.closest("button, summary, input")) {
    event.preventDefault();
    if (!event.repeat) playing.toggle();
  }
});
$("help-open").onclick = openHelp;
$("retry").onclick = () => connection.open();
$("notice-close").onclick = () => ($("notice").hidden = true);

requestAnimationFrame(frame);
