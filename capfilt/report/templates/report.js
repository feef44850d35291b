"use strict";
// The threshold slider: reads shares that stand in the page as data attributes.
const slider = document.getElementById("threshold");
if (slider) {
  const line = document.getElementById("threshold-line");
  const label = document.getElementById("threshold-label");
  const shares = Array.from(document.querySelectorAll("[data-shares]"), (place) => ({
    place, values: place.dataset.shares.split(" ").map(Number),
  }));
  const percent = (share) => (100 * share).toFixed(share < 0.1 ? 1 : 0) + "%";
  const move = () => {
    const step = Number(slider.value);
    line.style.left = step + "%";
    label.textContent = (step / 100).toFixed(2);
    for (const { place, values } of shares) place.textContent = percent(values[step]);
  };
  slider.addEventListener("input", move);
  slider.closest(".control").hidden = false;
}

// The gallery's filter: words that must all occur in a card, and one verdict or all.
const tools = document.getElementById("tools");
if (tools) {
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const sections = Array.from(document.querySelectorAll("[data-verdict]"), (section) => ({
    section,
    cards: Array.from(section.querySelectorAll(".card"), (card) => ({ card, text: card.textContent.toLowerCase() })),
  }));
  const total = sections.reduce((sum, { cards }) => sum + cards.length, 0);
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = tools.querySelector("input[name=verdict]:checked").value;
    let shown = 0;
    for (const { section, cards } of sections) {
      const wanted = verdict === "all" || section.dataset.verdict === verdict;
      let here = 0;
      for (const { card, text } of cards) {
        const fits = wanted && words.every((word) => text.includes(word));
        card.parentElement.hidden = !fits;
        here += fits ? 1 : 0;
      }
      section.hidden = !wanted || (words.length > 0 && here === 0);
      shown += here;
    }
    count.textContent = shown + " of " + total + " shown";
  };
  tools.addEventListener("input", apply);
  document.addEventListener("keydown", (event) => {
    const typing = /^(input|textarea|select)$/i.test(event.target.tagName) && event.target.type !== "radio";
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "Escape" && event.target === search) {
      search.value = "";
      apply();
      search.blur();
    }
  });
  tools.hidden = false;
  apply();
}
