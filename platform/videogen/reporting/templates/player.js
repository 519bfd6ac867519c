"use strict";
// Sprite player and gallery filter. All canvases follow one clock, each at its own frame rate, so that the stages of a
// row stay in step; animated images and <video> elements cannot be synchronised, paused or scrubbed together.
const media = JSON.parse(document.getElementById("media").textContent);
const HOLD_S = 0.35; // pause on the last frame before the loop restarts
const canvases = [...document.querySelectorAll("canvas[data-media]")].map((canvas) => {
  const sprite = media[canvas.dataset.media];
  canvas.width = sprite.width;
  canvas.height = sprite.height;
  return { canvas, sprite, image: null, shown: -1, visible: false };
});
const byCanvas = new Map(canvases.map((item) => [item.canvas, item]));
const length = Math.max(0.1, ...canvases.map(({ sprite }) => (sprite.fps ? sprite.frames / sprite.fps : 0)));
const play = document.getElementById("play");
const scrub = document.getElementById("scrub");
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let speed = 0.5, time = 0, last = null;

function draw(item) {
  const { sprite } = item;
  const frame = sprite.fps ? Math.min(sprite.frames - 1, Math.floor(Math.min(time, length) * sprite.fps + 1e-6)) : 0;
  if (frame === item.shown || !item.image || !item.image.complete) return;
  const x = (frame % sprite.columns) * sprite.width, y = Math.floor(frame / sprite.columns) * sprite.height;
  item.canvas.getContext("2d").drawImage(item.image, x, y, sprite.width, sprite.height, 0, 0, sprite.width, sprite.height);
  item.shown = frame;
}

function drawVisible() {
  for (const item of canvases) if (item.visible) draw(item);
}

// Images are decoded when their row first comes near the viewport.
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const item = byCanvas.get(entry.target);
    item.visible = entry.isIntersecting;
    if (item.visible && !item.image) {
      item.image = new Image();
      item.image.onload = () => draw(item);
      item.image.src = item.sprite.src;
    }
  }
}, { rootMargin: "300px" });
canvases.forEach(({ canvas }) => observer.observe(canvas));

function tick(now) {
  if (playing && last !== null) {
    time += ((now - last) / 1000) * speed;
    if (time > length + HOLD_S) time = 0;
    scrub.value = Math.min(1, time / length);
  }
  last = now;
  drawVisible();
  requestAnimationFrame(tick);
}
requestAnimationFrame(tick);

function setPlaying(value) {
  playing = value;
  play.textContent = playing ? "Pause" : "Play";
  play.setAttribute("aria-pressed", playing);
}
setPlaying(playing);
play.addEventListener("click", () => setPlaying(!playing));
scrub.addEventListener("input", () => {
  setPlaying(false);
  time = Math.min(scrub.value * length, length - 1e-3);
});

function choose(button, selector) {
  document.querySelectorAll(selector).forEach((other) => other.setAttribute("aria-pressed", other === button));
}
document.querySelectorAll("[data-speed]").forEach((button) => button.addEventListener("click", () => {
  speed = Number(button.dataset.speed);
  choose(button, "[data-speed]");
}));

const examples = [...document.querySelectorAll(".example")];
const search = document.getElementById("search");
let filter = "all";
function apply() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const example of examples) {
    const fits = (filter === "all" || example.classList.contains(filter)) && words.every((word) => example.dataset.prompt.includes(word));
    example.hidden = !fits;
    shown += fits;
  }
  document.getElementById("count").textContent = shown === examples.length ? "" : `${shown} of ${examples.length}`;
  document.getElementById("none").hidden = shown > 0;
}
document.querySelectorAll("[data-filter]").forEach((button) => button.addEventListener("click", () => {
  filter = button.dataset.filter;
  choose(button, "[data-filter]");
  apply();
}));
search.addEventListener("input", apply);
