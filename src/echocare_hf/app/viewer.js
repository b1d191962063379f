// The sliders over pictures, and where the page scrolls to when an answer has come.
document.addEventListener("input", (event) => {
  if (event.target.matches?.("[data-ec-share]")) {
    event.target.closest(".ec-viewer").style.setProperty("--share", event.target.value / 100);
  }
});
const wipeTo = (stage, x) => {
  const box = stage.getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (x - box.left) / box.width));
  const slider = stage.closest(".ec-viewer").querySelector("[data-ec-share]");
  slider.value = Math.round(100 * share);
  slider.dispatchEvent(new Event("input", { bubbles: true }));
};
document.addEventListener("pointerdown", (event) => {
  const stage = event.target.closest?.(".ec-wipe .ec-stage");
  if (!stage) return;
  event.preventDefault();
  wipeTo(stage, event.clientX);
  const move = (moved) => wipeTo(stage, moved.clientX);
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", () => window.removeEventListener("pointermove", move), { once: true });
});
window.echocareShowResults = () => {
  const results = document.getElementById("ec-results");
  if (results && results.getBoundingClientRect().top > window.innerHeight * 0.6) {
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    results.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
};
