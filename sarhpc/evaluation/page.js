"use strict";
// The page is whole without this: it adds a magnifier, enlarged tiles, and sets that can be hidden.

const TIMES = 5;

function lensOf(figure) {
  let lens = figure.querySelector(".lens");
  if (lens === null) {
    lens = document.createElement("div");
    lens.className = "lens";
    lens.setAttribute("aria-hidden", "true");
    figure.append(lens);
  }
  return lens;
}

// The same place in every tile of the row.
function magnify(row, u, v) {
  for (const figure of row.querySelectorAll(".tile")) {
    const image = figure.querySelector("img");
    const lens = lensOf(figure);
    const wide = image.clientWidth, high = image.clientHeight;
    const half = Math.round(Math.min(72, 0.38 * wide));
    lens.style.width = lens.style.height = `${2 * half}px`;
    lens.style.left = `${u * wide - half}px`;
    lens.style.top = `${v * high - half}px`;
    if (lens.dataset.shown === undefined) {
      lens.style.backgroundImage = `url("${image.src}")`;
      lens.dataset.shown = "1";
    }
    lens.style.backgroundSize = `${wide * TIMES}px ${high * TIMES}px`;
    lens.style.backgroundPosition = `${half - u * wide * TIMES}px ${half - v * high * TIMES}px`;
  }
}

function unmagnify(row) {
  for (const lens of row.querySelectorAll(".lens")) lens.remove();
}

function enlarge(image) {
  const dialog = document.createElement("dialog");
  const large = image.cloneNode();
  large.removeAttribute("tabindex");
  large.removeAttribute("role");
  const room = Math.min(window.innerWidth - 60, 1000) / image.naturalWidth;
  large.style.width = `${image.naturalWidth * Math.max(1, Math.floor(room))}px`;
  const words = document.createElement("p");
  words.textContent = image.alt;
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { dialog.remove(); image.focus(); });
  dialog.append(large, words, close);
  document.body.append(dialog);
  dialog.showModal();
}

function makeZoomable(row) {
  row.classList.add("zoomable");
  for (const figure of row.querySelectorAll(".tile")) {
    const image = figure.querySelector("img");
    figure.style.position = "relative";
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    image.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      const box = image.getBoundingClientRect();
      magnify(row, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    image.addEventListener("pointerleave", () => unmagnify(row));
    image.addEventListener("click", () => enlarge(image));
    image.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(image); }
    });
  }
}

function makeSwitch(item) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = "show or hide this set in all figures";
  button.setAttribute("aria-pressed", "true");
  button.append(...item.childNodes);
  item.append(button);
  button.addEventListener("click", () => {
    const hidden = button.getAttribute("aria-pressed") === "true";
    for (const other of document.querySelectorAll(".legend li")) {
      if (other.dataset.of === item.dataset.of) {
        other.firstElementChild.setAttribute("aria-pressed", String(!hidden));
      }
    }
    for (const drawn of document.querySelectorAll("[data-set]")) {
      if (drawn.dataset.set === item.dataset.of) drawn.classList.toggle("hidden-set", hidden);
    }
  });
}

for (const row of document.querySelectorAll(".row")) makeZoomable(row);
for (const item of document.querySelectorAll(".legend li")) makeSwitch(item);
for (const words of document.querySelectorAll(".with-script")) words.hidden = false;
