// A job is submitted with a form that is made from the recipe's own fields.

const FIRST = ["source.path"];

function input(field) {
  const id = `f-${field.name}`, name = field.name;
  const shown = field.default === null ? "" : Array.isArray(field.default) ? field.default.join(", ") : String(field.default);
  const hint = field.needed ? "" : shown || "none";
  if (field.kind === "choice" || field.kind === "yes-no") {
    const choices = field.kind === "choice" ? field.choices : ["true", "false"];
    return h("select", { id, name }, h("option", { value: "" }, `${shown} (default)`),
      choices.filter(choice => choice !== shown).map(choice => h("option", { value: choice }, choice)),
      field.optional ? h("option", { value: "null" }, "none") : null);
  }
  if (field.kind === "list" || field.kind === "json") {
    return h("textarea", { id, name, spellcheck: "false", placeholder: field.kind === "list" ? hint : JSON.stringify(field.default) });
  }
  const mode = { whole: "numeric", number: "decimal" }[field.kind] ?? "text";
  return h("input", { id, name, inputmode: mode, placeholder: hint, autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: field.needed });
}

function labelled(field, element, label) {
  const about = h("small", { id: `a-${field.name}` }, field.about.replaceAll("``", "").replaceAll("`", ""));
  element.setAttribute("aria-describedby", about.id);
  return h("div", { class: "field", "data-name": field.name }, h("label", { for: element.id }, label), element, about);
}

// What was written, as the recipe takes it; what was left alone keeps its default.
function value(field, text) {
  if (field.optional && ["null", "none"].includes(text)) return null;
  if (field.kind === "whole" || field.kind === "number") return Number.isFinite(Number(text)) ? Number(text) : text;
  if (field.kind === "yes-no") return text === "true";
  if (field.kind === "list") return text.split(/[\n,]/).map(one => one.trim()).filter(Boolean);
  if (field.kind === "json") {
    try { return JSON.parse(text); } catch { throw Object.assign(new Error("this is no JSON"), { where: field.name, mend: "Write it as JSON." }); }
  }
  return text;
}

function recipe(form, fields) {
  const made = {};
  for (const field of fields) {
    const text = form.elements[field.name].value.trim();
    if (text === "") continue;
    const path = field.name.split("."), last = path.pop();
    path.reduce((place, name) => place[name] ??= {}, made)[last] = value(field, text);
  }
  return made;
}

async function showNew(signal) {
  main.replaceChildren(h("h1", {}, "New job"));
  let sections;
  try { ({ sections } = await told("/v1/recipe-form", { signal })); }
  catch (error) { if (!signal.aborted) main.append(notice(error)); return; }
  const fields = sections.flatMap(section => section.fields);
  const source = fields.find(field => field.name === "source.path");
  const dest = { name: "dest", about: "A new or unfinished folder, as the service sees it, or a URL as s3://bucket/folder.", kind: "text", needed: true, default: null };
  const workers = { name: "workers", about: "Processes that hold the models; left empty, as many as fit.", kind: "whole", needed: false, default: null };
  const wrong = h("div", {});
  const send = h("button", {}, "Submit");
  const form = h("form", { novalidate: true },
    labelled(source, input(source), "Source"), labelled(dest, input(dest), "Destination"),
    h("h2", {}, "Settings"), h("p", { class: "small" }, "Every field has a default; fill in only what you want otherwise."),
    sections.map(section => {
      const some = section.fields.filter(field => !FIRST.includes(field.name));
      const list = h("div", { class: "fields" }, some.map(field => labelled(field, input(field), field.name.slice(section.name.length + 1))));
      return h("details", { class: "section" }, h("summary", {}, section.name, h("small", {}, section.about)), list);
    }),
    h("details", { class: "section" }, h("summary", {}, "run", h("small", {}, "On how many workers.")), h("div", { class: "fields" }, labelled(workers, input(workers), "workers"))),
    wrong, h("p", { class: "buttons" }, send));
  // The same key for the same press, so that a connection that breaks submits no second job.
  let key = null, sent = "";
  form.addEventListener("submit", async event => {
    event.preventDefault();
    form.querySelectorAll(".wrong").forEach(field => field.classList.remove("wrong"));
    form.querySelectorAll("[aria-invalid]").forEach(one => one.removeAttribute("aria-invalid"));
    send.disabled = true;
    try {
      const count = form.elements.workers.value.trim();
      const asked = { recipe: recipe(form, fields), dest: form.elements.dest.value.trim(), workers: count ? value(workers, count) : null };
      for (const [name, text] of [["source.path", asked.recipe.source?.path], ["dest", asked.dest]]) {
        if (!text) throw Object.assign(new Error("is needed"), { where: name });
      }
      if (JSON.stringify(asked) !== sent) {
        sent = JSON.stringify(asked);
        key = [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, "0")).join("");
      }
      const job = await told("/v1/jobs", { method: "POST", json: asked, signal, more: { "Idempotency-Key": key } });
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused) sent = "";
      wrong.replaceChildren(notice(error));
      const names = `${error.where ?? ""} ${error.message}`;
      const name = [...fields, dest, workers].map(field => field.name).sort((a, b) => b.length - a.length).find(one => names.includes(one));
      const field = name && form.querySelector(`[data-name="${name}"]`);
      if (field) {
        field.classList.add("wrong");
        field.closest("details")?.setAttribute("open", "");
        const element = form.elements[name];
        element.setAttribute("aria-invalid", "true");
        element.focus();
      }
    }
    send.disabled = false;
  });
  main.append(form);
}
