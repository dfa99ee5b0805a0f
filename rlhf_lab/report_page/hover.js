// Moves the readout of each chart with the pointer, a finger or the arrow keys. Without it the legend shows last values.
"use strict";

function nearest(points, x) {
  return points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best), points[0]);
}

for (const plot of document.querySelectorAll("svg[data-readout]")) {
  const { label, series } = JSON.parse(plot.dataset.readout);
  const figure = plot.closest("figure");
  const values = [...figure.querySelectorAll(".value")];
  const at = figure.querySelector(".at");
  const cursor = plot.querySelector(".cursor");
  const rest = { values: values.map((value) => value.textContent), at: at.textContent };
  const densest = series.reduce((a, b) => (b.length > a.length ? b : a));
  let index = densest.length - 1;

  function show(point) {
    index = densest.indexOf(point);
    cursor.setAttribute("x1", point[0]);
    cursor.setAttribute("x2", point[0]);
    cursor.setAttribute("visibility", "visible");
    // A sparse curve (evaluations) answers with its nearest point, so it names that point's own step.
    series.forEach((points, i) => {
      const own = nearest(points, point[0]);
      values[i].textContent = own[1] === point[1] ? own[2] : `${own[2]} (at ${own[1]})`;
    });
    at.textContent = `${label} ${point[1]}`;
  }

  function leave() {
    cursor.setAttribute("visibility", "hidden");
    values.forEach((value, i) => { value.textContent = rest.values[i]; });
    at.textContent = rest.at;
    index = densest.length - 1;
  }

  function follow(event) {
    const box = plot.getBoundingClientRect();
    show(nearest(densest, ((event.clientX - box.left) / box.width) * plot.viewBox.baseVal.width));
  }

  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(densest[Math.min(densest.length - 1, Math.max(0, index + step))]);
  });
}
