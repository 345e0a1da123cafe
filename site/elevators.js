// Puts a moving elevator where a page shows its still picture. Every ride lies in a file of its own, fetched when the
// reader comes near it; a page opened from a folder may load scripts, but no data.
"use strict";

window.lessonRides = {};

function rideFile(name) {
  const script = document.createElement("script");
  script.src = new URL(`rides/${name}.js`, document.getElementById("elevators-script").src).href;
  return new Promise((done, failed) => {
    script.addEventListener("load", done);
    script.addEventListener("error", failed);
    document.head.append(script);
  });
}

async function play(place) {
  const name = place.dataset.ride;
  await rideFile(name);
  const { widget, json } = window.lessonRides[name];
  window.lessonWidgets[widget]({ model: window.lessonModel(json), el: place });
  for (const still of place.closest(".cell_output").querySelectorAll("img")) (still.closest("a") ?? still).hidden = true;
}

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    play(target).catch((error) => console.debug("the still picture stays", error));
  }
}, { rootMargin: "400px" });

document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll("[data-ride]")) near.observe(place);
  // What scrolls must be within reach of the keyboard.
  for (const box of document.querySelectorAll("pre, .math-wrapper")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
  }
});
