// A canvas that is as wide as its place, sharp on every screen, and drawn again when size or theme change.

import { el } from "./dom.js";
import { onTheme } from "./palette.js";

export class Canvas {
  constructor(draw, attributes = {}) {
    this.paint = draw;
    this.node = el("canvas", attributes);
    this.height = 0;
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.node);
    this.forget = onTheme(() => this.draw());
  }

  draw() {
    const width = this.node.clientWidth;
    if (width === 0 || this.height === 0) return;
    const scale = window.devicePixelRatio || 1;
    this.node.style.height = `${this.height}px`;
    this.node.width = Math.round(width * scale);
    this.node.height = Math.round(this.height * scale);
    const context = this.node.getContext("2d");
    context.scale(scale, scale);
    this.paint(context, width, this.height);
  }

  // The place of the pointer, as parts of width and height.
  at(event) {
    const box = this.node.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  close() {
    this.sizes.disconnect();
    this.forget();
  }
}
