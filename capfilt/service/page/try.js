// One picture, tried: its captions, and what the filter says of them and of texts that you give.

const encoded = file => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(new Error("The file cannot be read"));
  reader.readAsDataURL(file);
});

function verdict(said, about) {
  const item = h("li", { class: said.kept ? "yes" : "no" },
    h("p", { dir: "auto" }, h("span", { class: "sign", "aria-hidden": "true" }, said.kept ? "✓" : "✕"),
      h("span", { class: "hidden-text" }, said.kept ? "Kept: " : "Not kept: "), said.text));
  const words = [said.origin === "synthetic" ? "written here" : "your text"];
  if (said.itm !== null) {
    const scale = h("div", { class: "scale", "aria-hidden": "true" }, h("i"));
    scale.firstChild.style.width = `${said.itm * 100}%`;
    if (about.threshold >= 0 && about.threshold <= 1) {
      scale.append(h("b"));
      scale.lastChild.style.left = `${about.threshold * 100}%`;
    }
    item.append(scale);
    words.push(`match ${said.itm.toFixed(3)}`);
  }
  if (said.itc !== null) words.push(`cosine ${said.itc.toFixed(3)}`);
  item.append(h("small", {}, words.join(", ")));
  return item;
}

async function showTry(signal) {
  let about;
  try { about = await told("/v1/about", { signal }); }
  catch (error) { if (!signal.aborted) main.replaceChildren(h("h1", {}, "Try a picture"), notice(error)); return; }
  let file = null;
  const chosen = h("input", { type: "file", accept: "image/*", id: "file" });
  const inside = h("span", {}, h("strong", {}, "Choose a picture"), h("br"), "or drop it here, or paste it");
  const drop = h("label", { class: "drop", for: "file" }, inside, chosen);
  const address = h("input", { id: "url", type: "url", inputmode: "url", placeholder: "https://", autocomplete: "off" });
  const texts = h("textarea", { id: "texts", placeholder: "a red bicycle\nIMG 4711", maxlength: 20000 });
  const send = h("button", {}, about.captioner ? "Caption and judge" : "Judge");
  const answer = h("section", { "aria-live": "polite", "aria-label": "Result" });
  const use = one => {
    if (!one || !one.type.startsWith("image/")) return;
    file = one;
    const url = URL.createObjectURL(one);
    const picture = h("img", { src: url, alt: `Your picture ${one.name}`, onload: () => URL.revokeObjectURL(url) });
    inside.replaceChildren(picture);
    address.value = "";
  };
  chosen.addEventListener("change", () => use(chosen.files[0]));
  drop.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", event => { event.preventDefault(); drop.classList.remove("over"); use(event.dataTransfer.files[0]); });
  document.addEventListener("paste", event => use(event.clipboardData.files[0]), { signal });
  const form = h("form", { novalidate: true }, drop,
    h("div", { class: "field" }, h("label", { for: "url" }, "Or its address"), address),
    h("div", { class: "field" }, h("label", { for: "texts" }, "Texts to judge, one a line"), texts),
    h("p", { class: "buttons" }, send));
  form.addEventListener("submit", async event => {
    event.preventDefault();
    send.disabled = true;
    answer.replaceChildren(h("p", { class: "small" }, "Working"));
    try {
      const said = texts.value.split("\n").map(line => line.trim()).filter(Boolean);
      const place = address.value.trim() ? { url: address.value.trim() } : file ? { image: await encoded(file) } : null;
      if (!place) throw Object.assign(new Error("There is no picture yet"), { mend: "Choose one, or give its address." });
      const path = about.captioner && about.filter ? "/v1/capfilt" : about.captioner ? "/v1/caption" : "/v1/score";
      const asked = path === "/v1/caption" ? place : { ...place, texts: said };
      const { results: [result] } = await told(path, { method: "POST", json: { pictures: [asked] }, signal });
      if (result.drop) throw Object.assign(new Error(result.detail || result.drop), { where: result.drop.replaceAll("_", " ") });
      answer.replaceChildren(
        h("ul", { class: "verdicts" }, result.captions.map(one => verdict(one, about))),
        result.captions.length ? "" : h("p", {}, "No text was given, and no captioner is here."),
        about.filter ? h("p", { class: "small" }, `✓ is kept: the score is at least ${about.threshold}, where the line stands. ${result.width} × ${result.height} pixels.`) : "");
    } catch (error) { if (!signal.aborted) answer.replaceChildren(notice(error)); }
    send.disabled = false;
  });
  main.replaceChildren(h("h1", {}, "Try a picture"), h("p", { class: "small" },
    `Captioner ${about.captioner ?? "none"}, filter ${about.filter ?? "none"}. Nothing of it is kept.`),
    h("div", { class: "trial" }, form, answer));
}
