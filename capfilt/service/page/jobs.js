// The list of jobs, and one of them as it goes on.

const STREAMS = 3;  // a browser keeps six connections to a server; pages of other jobs need some of them

function far(job) {
  const p = job.progress;
  if (!p) return h("small", { class: "far" }, job.state === "queued" ? "waits for its turn" : "");
  const left = job.state === "running" && p.eta_s !== null ? `, ${span(p.eta_s)} left` : "";
  const line = h("small", {}, `${count(p.done)} of ${count(p.total)} parts, ${count(p.kept)} of ${count(p.rows)} rows kept${left}`);
  return h("div", { class: "far" }, bar(p), line);
}

const bar = p => h("progress", { max: Math.max(p.total, 1), value: p.done, "aria-label": "Parts done" });

function entry(job) {
  return h("li", { "data-id": job.id },
    h("a", { href: `#/jobs/${job.id}` },
      h("span", {}, h("span", { class: "name" }, job.dest), h("small", {}, `from ${job.source}, ${when(job.created)}, by ${job.owner}`)),
      h("span", { class: `state ${job.state}` }, job.state),
      far(job)));
}

async function showJobs(signal) {
  const list = h("ul", { class: "jobs" });
  const more = h("button", { type: "button", class: "second", hidden: true }, "Earlier jobs");
  const note = h("div", {});
  main.replaceChildren(h("h1", {}, "Jobs"), note, list, h("p", { class: "buttons" }, more));
  const followed = new Set();
  let streams = 0;
  const put = job => {
    const there = list.querySelector(`[data-id="${job.id}"]`);
    if (there) there.replaceChildren(...entry(job).childNodes);
    return there;
  };
  const watch = job => {
    if (!active(job) || followed.has(job.id) || streams >= STREAMS) return;
    followed.add(job.id);
    streams += 1;
    follow(job.id, signal, put).finally(() => { streams -= 1; followed.delete(job.id); });
  };
  let next = null;
  const load = async before => {
    const page = await told(`/v1/jobs?limit=30${before ? `&before=${before}` : ""}`, { signal });
    for (const job of page.jobs) {
      if (!put(job)) (before ? list.append.bind(list) : addNew)(entry(job));
      watch(job);
    }
    if (before || next === null) next = page.next;
    more.hidden = !next;
    note.replaceChildren(...(list.children.length ? [] : [
      h("p", {}, "There are no jobs yet. A job captions and filters a whole corpus and writes it as a data set."),
      h("p", {}, h("a", { href: "#/new" }, "Submit the first one"))]));
  };
  let first = true;
  const fresh = [];
  function addNew(item) { if (first) list.append(item); else fresh.push(item); }
  more.addEventListener("click", () => load(next).catch(error => note.replaceChildren(notice(error))));
  while (!signal.aborted) {
    try {
      await load(null);
      list.prepend(...fresh.splice(0));
      first = false;
    } catch (error) {
      if (signal.aborted) return;
      note.replaceChildren(notice(error));
      if (error instanceof Refused && ![429, 503].includes(error.status)) return;
    }
    await new Promise(resolve => setTimeout(resolve, 5000));
  }
}

function figures(job) {
  const p = job.progress;
  if (!p) return null;
  const end = job.ended ?? Date.now() / 1000;
  const cells = [["rows in", count(p.rows)], ["kept", count(p.kept)], ["dropped", count(p.rows - p.kept)],
    ["parts", `${count(p.done)} / ${count(p.total)}`]];
  if (job.started) cells.push(["time", span(end - job.started)]);
  if (job.state === "running" && p.eta_s !== null) cells.push(["left", span(p.eta_s)]);
  return [bar(p), h("dl", { class: "figures" }, cells.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))];
}

function books(p) {
  const dropped = Object.entries(p.dropped).filter(([, rows]) => rows).sort((a, b) => b[1] - a[1]);
  const texts = Object.entries(p.texts).filter(([, all]) => all);
  const row = (name, ...cells) => h("tr", {}, h("th", { scope: "row" }, name), cells.map(cell => h("td", { class: "num" }, cell)));
  return [
    dropped.length ? [h("h2", {}, "Dropped rows"), h("table", {}, h("tbody", {}, dropped.map(([why, rows]) => row(why.replaceAll("_", " "), count(rows)))))] : [],
    texts.length ? [h("h2", {}, "Texts that the filter kept"), h("table", {}, h("tbody", {}, texts.map(([origin, all]) =>
      row(origin, `${count(p.texts_kept[origin] ?? 0)} of ${count(all)}`))))] : [],
  ].flat();
}

async function showJob(id, signal) {
  const top = h("div", {}), below = h("div", {});
  main.replaceChildren(top, below);
  let state = "";
  const act = async (button, path, json) => {
    button.disabled = true;
    try { put(await told(path, { method: "POST", json, signal })); restart(); }
    catch (error) { below.replaceChildren(notice(error)); }
    button.disabled = false;
  };
  const put = job => {
    const controls = h("p", { class: "buttons" });
    if (active(job)) controls.append(h("button", { type: "button", class: "second", onclick: event => act(event.target, `/v1/jobs/${id}/cancel`) }, "Cancel"));
    else if (job.state !== "done") controls.append(h("button", { type: "button", onclick: event => act(event.target, `/v1/jobs/${id}/retry`, {}) }, "Go on with it"));
    if (job.state === "done") {
      controls.append(h("button", { type: "button", onclick: () => showReport(id, below, signal) }, "Show the report"));
      controls.append(h("button", { type: "button", class: "second", onclick: () => save(`/v1/jobs/${id}/manifest`, `${id}.json`, below) }, "Save the manifest"));
    }
    controls.append(h("button", { type: "button", class: "second", onclick: () => showLog(id, below, signal) }, "Show the log"));
    const held = document.activeElement?.textContent;
    top.replaceChildren(...[
      h("p", { class: "small" }, h("a", { href: "#/jobs" }, "All jobs")),
      h("h1", {}, job.dest),
      h("p", {}, h("span", { class: `state ${job.state}` }, job.state), h("small", { class: "path" },
        ` from ${job.source}, submitted ${when(job.created)} by ${job.owner}${job.attempt > 1 ? `, attempt ${job.attempt}` : ""}`)),
      job.error ? notice(Object.assign(new Error(job.error.what), job.error)) : null,
      figures(job), controls, job.progress ? books(job.progress) : null].flat(2).filter(Boolean));
    [...controls.children].find(button => button.textContent === held)?.focus();
    if (state && state !== job.state) say(`The job is ${job.state}`);
    state = job.state;
  };
  let running = null;
  const restart = () => {
    running?.abort();
    running = new AbortController();
    follow(id, AbortSignal.any([signal, running.signal]), put);
  };
  try { put(await told(`/v1/jobs/${id}`, { signal })); }
  catch (error) { if (!signal.aborted) top.replaceChildren(notice(error)); return; }
  restart();
}

async function showReport(id, place, signal) {
  try {
    const page = await (await ask(`/v1/jobs/${id}/report`, { signal })).text();
    const frame = h("iframe", { title: "Report", src: "/report", sandbox: "allow-scripts" });
    addEventListener("message", function ready(event) {
      if (event.source !== frame.contentWindow) return;
      removeEventListener("message", ready);
      frame.contentWindow.postMessage(page, "*");
    });
    place.replaceChildren(h("h2", {}, "Report"), frame, h("p", { class: "buttons" },
      h("button", { type: "button", class: "second", onclick: () => save(`/v1/jobs/${id}/report`, `${id}.html`, place) }, "Save the report")));
    frame.scrollIntoView({ block: "start" });
  } catch (error) { place.replaceChildren(notice(error)); }
}

async function showLog(id, place, signal) {
  try {
    const text = await (await ask(`/v1/jobs/${id}/log`, { signal })).text();
    const log = h("pre", { tabindex: 0, "aria-label": "Log" }, text || "Nothing yet.");
    place.replaceChildren(h("h2", {}, "The end of its log"), log);
    log.scrollTop = log.scrollHeight;
  } catch (error) { place.replaceChildren(notice(error)); }
}

async function save(path, name, place) {
  try {
    const url = URL.createObjectURL(await (await ask(path)).blob());
    h("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  } catch (error) { place.replaceChildren(notice(error)); }
}
