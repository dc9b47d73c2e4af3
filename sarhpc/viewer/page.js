"use strict";

const EVERY_MS = 5000;
const status = document.getElementById("status");
const report = document.querySelector("#report iframe");
let reported = null;

async function fragment(name) {
  const answer = await fetch(name, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.text();
}

function showReport() {
  const made = status.querySelector("table").dataset.report;
  document.getElementById("no-report").hidden = made !== "";
  report.hidden = made === "";
  if (made !== "" && made !== reported) report.src = "report";
  reported = made;
}

async function refresh() {
  const lost = document.getElementById("lost");
  try {
    status.innerHTML = await fragment("status");
    const rows = document.getElementById("grid-rows");
    const grids = await fragment("grids");
    if (rows.dataset.shown !== grids) {
      if (rows.dataset.shown !== undefined) rows.innerHTML = grids;
      rows.dataset.shown = grids;
    }
    showReport();
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
}

document.getElementById("inspect").addEventListener("click", () => {
  const frame = document.querySelector("#inspection iframe");
  frame.hidden = false;
  frame.src = "inspection";
});

showReport();
setInterval(refresh, EVERY_MS);
