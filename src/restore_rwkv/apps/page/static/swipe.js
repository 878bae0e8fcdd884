// The divider between before and restored: mouse, touch and keys move it.

import { byId } from "./words.js";

const STEP = 2;
const LARGE = 10;

export class Swipe {
  constructor(moved) {
    this.divider = byId("divider");
    this.stage = byId("stage");
    this.moved = moved;
    this.place = 50;
    this.divider.addEventListener("pointerdown", (event) => {
      this.divider.setPointerCapture(event.pointerId);
      this.divider.focus();
      event.preventDefault();
    });
    this.divider.addEventListener("pointermove", (event) => {
      if (!this.divider.hasPointerCapture(event.pointerId)) return;
      const area = byId("pane-before").getBoundingClientRect();
      this.set(((event.clientX - area.left) / area.width) * 100);
    });
    this.divider.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(byId("pane-before"));
  }

  key(event) {
    const step = event.shiftKey ? LARGE : STEP;
    const places = {
      ArrowLeft: this.place - step,
      ArrowDown: this.place - step,
      ArrowRight: this.place + step,
      ArrowUp: this.place + step,
      PageDown: this.place - LARGE,
      PageUp: this.place + LARGE,
      Home: 0,
      End: 100,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    event.stopPropagation(); // the images have keys of their own
    this.set(places[event.key]);
  }

  set(place) {
    this.place = Math.min(100, Math.max(0, place));
    this.draw();
    this.moved(this.place);
  }

  draw() {
    const swiping = this.stage.classList.contains("swipe");
    const before = byId("pane-before");
    const right = 100 - this.place;
    before.style.clipPath = swiping ? `inset(0 ${right}% 0 0)` : "";
    this.divider.hidden = !swiping;
    this.divider.style.left = `${before.offsetLeft + (before.offsetWidth * this.place) / 100}px`;
    this.divider.style.top = `${before.offsetTop}px`;
    this.divider.style.height = `${before.offsetHeight}px`;
    this.divider.setAttribute("aria-valuenow", Math.round(this.place));
    this.divider.setAttribute("aria-valuetext", `before on the left ${Math.round(this.place)} percent, restored on the rest`);
  }
}
