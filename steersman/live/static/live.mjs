// The page: hears the server, shows what it says, tells it what the person does.

import { Connection } from "./connection.mjs";
import { Driving } from "./driving.mjs";
import { listenToGamepads, listenToKeys, listenToPointer } from "./inputs.mjs";
import { MINUS, Steering, capital, figure, named, parseMoment } from "./moments.mjs";
import { Belt, OverTime } from "./over_time.mjs";
import { Picture } from "./picture.mjs";
import { TrainingCurves } from "./training.mjs";
import { Webcam } from "./webcam.mjs";
import { Wheel } from "./wheels.mjs";

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const picture = new Picture($("picture"), $("look"));
const curves = new TrainingCurves($("loss"), $("lag"));
const wheels = { model: new Wheel("Model", "model"), truth: new Wheel("True", "truth"), driven: new Wheel("On the car", "third") };
$("wheels").append(...Object.values(wheels).map((wheel) => wheel.element));

const WAITING = { webcam: "The model waits for your camera", training: "The next lap is driven soon" };
let hello = null, steering = null, moment = null, overTime = null, belts = [], webcam = null, paused = false, hands = "", sayingTimer;
const due = { wheels: 0, plots: 0, texts: 0 };

// What the server says

const heard = {
  hello(event) {
    const again = hello !== null;
    hello = event;
    steering = new Steering(event);
    moment = null;
    hands = "";
    $("learning").hidden = true; // If it goes on, that is told again soon.
    begin();
    if (again) say("Connected again");
  },
  learning({ step, steps, loss }) {
    progress("learning", "learned", step, steps, loss);
    $("learn").disabled = true;
  },
  swapped({ version }) {
    $("learning").hidden = true;
    $("learn").disabled = !hello.recorded;
    say(`New weights drive: version ${version}`);
  },
  recorded({ drives }) {
    if (drives > hello.recorded) say(`A drive was recorded: ${drives} in all`);
    recorded(drives);
  },
  training(event) {
    curves.add(event);
    const { step, steps, loss } = event;
    progress("training", "trained", step, steps, loss);
  },
  paused(event) {
    if (paused !== event.paused) say(event.paused ? "Paused" : "Going on");
    setPaused(event.paused);
  },
  error({ error, do: mend }) {
    notice(`${capital(error)}: ${mend}`);
    $("learning").hidden = true;
    $("learn").disabled = !hello?.recorded;
  },
  goodbye({ why }) {
    say(`The server closed the connection: ${why}`);
  },
};

function hear(event) {
  heard[event.type]?.(event);
}

function hearMoment(buffer) {
  if (!hello) return;
  const before = moment;
  moment = parseMoment(buffer);
  const time = moment.n / hello.rate_hz;
  overTime?.add(time, moment);
  moment.gates?.forEach((gates, i) => gates.length && belts[i]?.add(time, gates));
  picture.show(moment);
  webcam?.answered();
  $("waiting").hidden = true;
  if (moment.lap && !before?.lap) say(`A lap on ${moment.record}`);
  if (moment.hands !== hands) tellHands();
}

function tellHands() {
  hands = moment.hands;
  const person = hands === "person";
  $("screen").classList.toggle("person", person);
  $("hands").hidden = !hello.wheel;
  $("hands").textContent = !person ? "The model drives" : driving.recent ? "You drive" : "Another page drives";
}

function begin() {
  document.title = `${hello.run} \u2013 Steersman`;
  $("run").textContent = hello.run;
  $("restart").textContent = hello.source === "simulator" ? "Next track" : "From the start";
  $("restart").hidden = ["webcam", "training"].includes(hello.source);
  $("pause").hidden = hello.source === "training";
  $("person").hidden = !hello.wheel;
  for (const line of document.querySelectorAll("#help .driving")) line.hidden = !hello.wheel;
  $("screen").classList.toggle("takes", hello.wheel);
  driving.allow(hello.wheel);
  $("training").hidden = hello.source !== "training";
  $("records").hidden = !hello.records;
  $("record").replaceChildren(...(hello.records ?? []).map((name) => new Option(name, name)));
  $("camera").hidden = hello.source !== "webcam";
  $("waiting").textContent = WAITING[hello.source] ?? "Waiting for the first picture";
  const [height, width] = hello.size ?? [0, 0];
  $("screen").hidden = $("look-on").parentElement.hidden = !(height && width);
  if (!$("waiting").hidden && height) Object.assign($("picture"), { height, width });
  recorded(hello.recorded);
  setPaused(hello.paused ?? false);
  $("main").classList.toggle("plain", !height && !steering.target);
  $("all").open = !steering.target;
  layOutChart();
  layOutGates();
}

/** Of the wheel, or else of the first target that is a quantity. */
function layOutChart() {
  const target = steering.target ?? hello.targets.find((name) => hello.range?.[name]);
  $("over-time").hidden = !target;
  overTime = target ? new OverTime($("angle"), { target, range: hello.range?.[target], rate: hello.rate_hz }) : null;
  $("over-time-title").textContent = target === steering.target ? "Steering over time" : `${target} over time`;
  $("unit").textContent = unit(target);
}

const unit = (target) => (hello.units?.[target] ?? "").replace(/-(?=\d)/g, MINUS);

/** A strip for each gate of each layer. */
function layOutGates() {
  $("belts").replaceChildren();
  belts = hello.belts.map(({ layer, gates }) => {
    if (hello.belts.length > 1 && gates.length) $("belts").append(text("p", `Layer ${layer + 1}`));
    const canvases = gates.map((gate) => {
      const canvas = document.createElement("canvas"), strip = text("div", "", "strip");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${gate}, over time, a row a unit`);
      strip.append(text("span", gate), canvas);
      $("belts").append(strip);
      return canvas;
    });
    return new Belt(canvases, hello.rate_hz);
  });
  $("gates").hidden = !hello.belts.some(({ gates }) => gates.length);
}

function recorded(drives) {
  hello.recorded = drives;
  $("recorded").textContent = drives ? `${figure(drives, 0)} ${drives === 1 ? "drive" : "drives"} recorded` : "Nothing recorded yet";
  $("learn").disabled = !drives || !$("learning").hidden;
}

/** `loss` is null while a training still gets ready. */
function progress(box, bar, step, steps, loss) {
  $(box).hidden = false;
  Object.assign($(bar), { max: steps, value: step });
  const place = `step ${figure(step, 0)} of ${figure(steps, 0)}`;
  $(`${bar}-text`).textContent = loss === null ? "Getting ready" : `${place}, loss ${loss.toPrecision(3)}`;
}

// What is shown, no oftener than eyes need

function frame(now) {
  requestAnimationFrame(frame);
  const ready = (name, every) => now >= due[name] && ((due[name] = now + (calm.matches ? Math.max(every, 250) : every)), true);
  if (moment && ready("wheels", 30)) showWheels();
  if (hello && ready("plots", 66)) showPlots();
  if (moment && ready("texts", 200)) showTexts();
}

function showWheels() {
  const driven = moment.driven;
  wheels.model.show(steering.of(moment.prediction), steering);
  wheels.truth.show(steering.of(moment.truth), steering);
  wheels.driven.show(driven?.steer ?? null, steering);
  $("pedals").hidden = driven?.gas === undefined;
  if (driven) [$("gas").value, $("brake").value] = [driven.gas ?? 0, driven.brake ?? 0];
}

function showPlots() {
  if (moment) overTime?.draw();
  if (moment) for (const belt of belts) belt.draw(moment.n / hello.rate_hz);
  if (hello.source === "training") curves.draw();
}

function showTexts() {
  const { latency_ms: latency, speed_mps: speed, score } = moment;
  const place = [hello.source, moment.record, `frame ${figure(moment.n, 0)}`, `weights ${moment.version}`];
  $("about").textContent = place.filter(Boolean).join(" \u00b7 ");
  $("median").textContent = figure(latency.median, 1);
  $("p99").textContent = figure(latency.p99, 1);
  $("dropped").textContent = figure(moment.dropped + picture.skipped, 0);
  for (const [name, value] of Object.entries({ speed, score })) {
    $(`fact-${name}`).hidden = value === null;
    if (value !== null) $(name).textContent = figure(value, name === "score" ? 0 : 1);
  }
  if (hello.records && document.activeElement !== $("record")) $("record").value = moment.record;
  $("key-truth").hidden = !overTime?.has("truth");
  $("key-driven").hidden = !overTime?.has("person");
  if ($("all").open) showValues();
}

function showValues() {
  $("values").replaceChildren(...hello.targets.map((name) => {
    const row = document.createElement("tr");
    const head = text("th", name);
    head.scope = "row";
    const values = [moment.prediction, moment.truth].map((all) => text("td", named(name, all?.[name], hello), "n"));
    row.append(head, ...values, text("td", unit(name)));
    return row;
  }));
}

function text(tag, content, kind = "") {
  const made = document.createElement(tag);
  made.textContent = content;
  made.className = kind;
  return made;
}

/** Shown for a while over the picture, and read aloud. */
function say(words) {
  $("said").textContent = words;
  clearTimeout(sayingTimer);
  sayingTimer = setTimeout(() => ($("said").textContent = ""), 5000);
}

function notice(words) {
  $("notice-text").textContent = words;
  $("notice").hidden = false;
}

function setPaused(now) {
  paused = now;
  $("pause").textContent = paused ? "Go on" : "Pause";
}

// What the person does

const connection = new Connection({
  event: hear,
  moment: hearMoment,
  state(name, words, wait = "") {
    $("link").dataset.state = name;
    if ($("link").textContent !== words) $("link").textContent = words; // Read aloud; the seconds are not.
    $("wait").textContent = wait;
    $("main").classList.toggle("stale", name !== "live");
    $("retry").hidden = name !== "lost";
    if (name === "lost") driving.letGo();
  },
});
const driving = new Driving((message) => connection.send(message), () => {
  $("take").setAttribute("aria-pressed", String(driving.held));
});
listenToPointer(driving, $("screen"), $("thumb"));
listenToKeys(driving, {
  space: togglePause,
  help: openHelp,
  ignored: (target) => target.closest("select, textarea, dialog"),
});
listenToGamepads((words) => {
  $("gamepad").textContent = words;
  $("gamepad").hidden = !words;
});

function togglePause() {
  if (!$("pause").hidden) connection.send({ type: "pause", paused: !paused });
}

function openHelp() {
  if (!$("help").open) $("help").showModal();
}

$("pause").onclick = togglePause;
$("restart").onclick = () => connection.send({ type: "restart" });
$("record").onchange = () => connection.send({ type: "record", name: $("record").value });
$("look-on").onchange = () => picture.setLook($("look-on").checked);
$("take").onclick = () => driving.hold(!driving.held);
$("learn").onclick = () => connection.send({ type: "learn" }) && heard.learning({ step: 0, steps: 1, loss: null });
$("help-open").onclick = openHelp;
$("retry").onclick = () => connection.open();
$("notice-close").onclick = () => ($("notice").hidden = true);
$("camera").onclick = async () => {
  if (webcam?.stream) {
    webcam.stop();
    $("camera").textContent = "Start the camera";
    return;
  }
  webcam = new Webcam({ size: hello.size, rate: hello.rate_hz, send: (jpeg) => connection.send(jpeg), failed: notice });
  if (await webcam.start()) $("camera").textContent = "Stop the camera";
};

requestAnimationFrame(frame);
