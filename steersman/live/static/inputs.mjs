// @ts-check
// Keys, pointer and gamepads of the page that drive.

/** @param {import("./driving.mjs").Driving} driving */
export function listenToKeys(driving) {
  addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("select, textarea, dialog")) return;
    if (driving.key(event.key, true)) event.preventDefault();
    else if (event.key === "Escape") driving.letGo();
  });
  addEventListener("keyup", (event) => driving.key(event.key, false));
  addEventListener("blur", () => driving.letGo()); // No key's release is heard from elsewhere.
}

/**
 * A drag on the screen drives by how far it is from where it began, which `thumb` follows.
 * @param {import("./driving.mjs").Driving} driving @param {HTMLElement} screen @param {HTMLElement} thumb
 */
export function listenToPointer(driving, screen, thumb) {
  /** @type {[number, number]} */
  let began = [0, 0];
  let down = false;
  const drag = ({ clientX, clientY }) => {
    const box = screen.getBoundingClientRect();
    driving.dragged([(clientX - began[0]) / box.width, (clientY - began[1]) / box.height]);
    thumb.hidden = false;
    thumb.style.left = `${clientX - box.left}px`;
    thumb.style.top = `${clientY - box.top}px`;
  };
  const end = () => {
    down = false;
    driving.dragged(null);
    thumb.hidden = true;
  };
  screen.addEventListener("pointerdown", (event) => {
    if (!driving.allowed || !event.isPrimary || event.button !== 0) return;
    began = [event.clientX, event.clientY];
    down = true;
    screen.setPointerCapture(event.pointerId);
    drag(event);
  });
  screen.addEventListener("pointermove", (event) => down && drag(event));
  screen.addEventListener("pointerup", end);
  screen.addEventListener("pointercancel", end);
}

/**
 * `say` is told which gamepad is there; nothing when it is gone. Their sticks are read by Driving.
 * @param {(words: string) => void} say
 */
export function listenToGamepads(say) {
  addEventListener("gamepadconnected", ({ gamepad }) => {
    say(`${gamepad.mapping === "standard" ? "Gamepad" : "The layout of this gamepad is not known"}: ${gamepad.id}`);
  });
  addEventListener("gamepaddisconnected", () => say(""));
}
