"use strict";
// Verdicts at the slider's threshold, and which cards are shown: by verdict and by words.
const slider = document.getElementById("threshold");
const tools = document.getElementById("tools");
const search = document.getElementById("search");
const cards = Array.from(document.querySelectorAll(".card"), (card) => ({
  place: card.parentElement,
  words: card.textContent.toLowerCase(),
  texts: Array.from(card.querySelectorAll(".texts > li"), (text) => ({
    text,
    sign: text.querySelector(".sign"),
    verdict: text.querySelector(".verdict"),
    fixed: text.dataset.fixed,
    score: text.dataset.score === undefined ? NaN : Number(text.dataset.score),
  })),
}));

function judge(threshold) {
  let kept = 0;
  for (const card of cards) {
    card.kept = false;
    for (const { text, sign, verdict, fixed, score } of card.texts) {
      const yes = fixed ? fixed === "yes" : score >= threshold;
      card.kept = card.kept || yes;
      text.className = yes ? "yes" : "no";
      if (!verdict) continue;
      sign.textContent = yes ? "✓" : "✕";
      verdict.textContent = yes ? "kept" : "removed";
    }
    kept += card.kept ? 1 : 0;
  }
  document.getElementById("value").textContent = threshold.toFixed(2);
  document.getElementById("headline").textContent = kept + " of " + cards.length + " kept";
}

function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const which = tools.querySelector("input[name=which]:checked").value;
  let shown = 0;
  for (const card of cards) {
    const fits = (which === "all" || card.kept === (which === "kept")) && words.every((word) => card.words.includes(word));
    card.place.hidden = !fits;
    shown += fits ? 1 : 0;
  }
  document.getElementById("count").textContent = shown + " of " + cards.length + " shown";
}

for (const card of cards) card.kept = card.texts.some(({ text }) => text.classList.contains("yes"));
if (slider) {
  slider.addEventListener("input", () => {
    judge(Number(slider.value));
    show();
  });
  judge(Number(slider.value));
}
if (tools) {
  tools.addEventListener("input", show);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.type === "search";
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "Escape" && event.target === search) {
      search.value = "";
      show();
      search.blur();
    }
  });
  tools.hidden = false;
  show();
}
