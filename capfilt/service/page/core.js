"use strict";
// Elements, and the service's answers. All texts go in as text: nothing that a stranger wrote becomes markup.

const main = document.getElementById("main");

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

function say(text) { document.getElementById("said").textContent = text; }

class Refused extends Error {
  constructor(status, problem) {
    super(problem.what || `The service answers ${status}`);
    this.status = status;
    this.where = problem.where || "";
    this.mend = problem.mend || "";
  }
}

function headers(more) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, Authorization: `Bearer ${token}` } : { ...more };
}

let asking = null;

function askForToken(why) {
  asking ??= new Promise(resolve => {
    const dialog = document.getElementById("ask");
    document.getElementById("ask-why").textContent = why;
    document.getElementById("token").value = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const token = document.getElementById("token").value.trim();
      document.getElementById("token").value = "";
      if (token) sessionStorage.setItem("token", token);
      document.getElementById("forget").hidden = !sessionStorage.getItem("token");
      resolve(Boolean(token));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

async function ask(path, { method = "GET", json, signal, more = {} } = {}) {
  for (;;) {
    const sent = json === undefined ? {} : { "Content-Type": "application/json" };
    const used = sessionStorage.getItem("token");
    const body = json === undefined ? undefined : JSON.stringify(json);
    const answer = await fetch(path, { method, signal, headers: headers({ ...sent, ...more }), body });
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    if (answer.status !== 401) throw new Refused(answer.status, problem);
    if (used !== sessionStorage.getItem("token")) continue;  // another request has asked meanwhile
    sessionStorage.removeItem("token");
    const why = used ? "This token is unknown here. Give another." :
      "This service asks who you are. Its operator gives tokens; yours is forgotten when you close this tab.";
    if (!await askForToken(why)) throw new Refused(401, problem);
  }
}

const told = async (path, options) => (await ask(path, options)).json();

// A job's events, until it ends or the signal is given; a stream that breaks is begun anew.
async function follow(id, signal, onJob) {
  while (!signal.aborted) {
    try {
      const answer = await ask(`/v1/jobs/${id}/events`, { signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "";;) {
        const { done, value } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const data = event.split("\n").find(line => line.startsWith("data: "));
          if (!data) continue;
          const job = JSON.parse(data.slice(6));
          onJob(job);
          if (!active(job)) return;
        }
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && ![429, 503].includes(error.status))) return;
    }
    await new Promise(resolve => setTimeout(resolve, 2000));
  }
}

function notice(error) {
  return h("div", { class: "notice bad", role: "alert" },
    h("p", {}, error.where ? `${error.where}: ${error.message}` : error.message),
    error.mend ? h("p", { class: "small" }, error.mend) : null);
}

const active = job => job.state === "queued" || job.state === "running";
const count = number => number.toLocaleString("en");
const when = seconds => new Date(seconds * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
}
