// Keys, pointer and gamepads of the page, and what of them drives.

export function listenToKeys(driving, { space, help, ignored }) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || ignored(event.target)) return;
    if (driving.key(event.key, true)) event.preventDefault();
    else if (event.key === "Escape") driving.letGo();
    else if (event.key === "?") help();
    else if (event.key === " " && !event.target.closest("button, summary, input")) {
      event.preventDefault();
      if (!event.repeat) space();
    }
  });
  addEventListener("keyup", (event) => driving.key(event.key, false));
  addEventListener("blur", () => driving.letGo()); // No key's release is heard from elsewhere.
}

/** A drag on the screen steers by how far it is from where it began, which `thumb` follows. */
export function listenToPointer(driving, screen, thumb) {
  let began = null;
  const drag = ({ clientX, clientY }) => {
    const box = screen.getBoundingClientRect();
    driving.dragged([(clientX - began[0]) / box.width, (clientY - began[1]) / box.height]);
    thumb.hidden = false;
    thumb.style.left = `${clientX - box.left}px`;
    thumb.style.top = `${clientY - box.top}px`;
  };
  const end = () => {
    began = null;
    driving.dragged(null);
    thumb.hidden = true;
  };
  screen.addEventListener("pointerdown", (event) => {
    if (!driving.allowed || !event.isPrimary || event.button !== 0) return;
    began = [event.clientX, event.clientY];
    screen.setPointerCapture(event.pointerId);
    drag(event);
  });
  screen.addEventListener("pointermove", (event) => began && drag(event));
  screen.addEventListener("pointerup", end);
  screen.addEventListener("pointercancel", end);
}

/** `say` is told which gamepad is there; nothing when it is gone. Their sticks are read by Driving. */
export function listenToGamepads(say) {
  addEventListener("gamepadconnected", ({ gamepad }) => {
    say(`${gamepad.mapping === "standard" ? "Gamepad" : "The layout of this gamepad is not known"}: ${gamepad.id}`);
  });
  addEventListener("gamepaddisconnected", () => say(""));
}
