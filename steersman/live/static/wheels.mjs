// Wheels in SVG, each turned by a number: the model's, the true one, what is driven.

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 52, LOCK_DEG = 135;

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** An arc about the centre from straight ahead by so many degrees, positive to the left. */
function arc(degrees) {
  const turn = (-Math.max(-179, Math.min(179, degrees)) * Math.PI) / 180;
  const [x, y] = [RADIUS * Math.sin(turn), -RADIUS * Math.cos(turn)];
  return `M0 ${-RADIUS}A${RADIUS} ${RADIUS} 0 0 ${turn > 0 ? 1 : 0} ${x.toFixed(2)} ${y.toFixed(2)}`;
}

export class Wheel {
  /** `colour` is model, truth or third. */
  constructor(label, colour) {
    this.swing = shape("path", { class: "swing" });
    this.turned = shape("g", {},
      shape("circle", { class: "rim", r: 38 }),
      shape("path", { class: "spokes", d: "M-36-2H-12M36-2H12M0 12V36" }),
      shape("circle", { class: "hub", r: 11, cy: -1 }),
      shape("path", { class: "mark", d: "M0-41V-35" }),
    );
    const lock = shape("path", { class: "lock", d: arc(LOCK_DEG) + arc(-LOCK_DEG) });
    const drawing = shape("svg", { viewBox: "-56 -56 112 104", "aria-hidden": "true" }, lock, this.swing, this.turned);
    this.label = document.createElement("span");
    this.label.className = "label";
    this.label.textContent = label;
    this.value = document.createElement("span");
    this.value.className = "value";
    this.element = document.createElement("div");
    this.element.className = `wheel ${colour}`;
    this.element.append(drawing, this.label, this.value);
  }

  show(value, steering) {
    this.element.hidden = value === null;
    if (value === null) return;
    const degrees = steering.degrees(value);
    this.turned.setAttribute("transform", `rotate(${(-degrees).toFixed(1)})`);
    this.swing.setAttribute("d", arc(degrees));
    this.value.textContent = steering.text(value);
  }
}
