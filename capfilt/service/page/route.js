// Which part of the page is shown: what stands behind # says it.

let shown = null;

function route() {
  shown?.abort();
  shown = new AbortController();
  const [, part, id] = (location.hash || "#/jobs").split("/");
  document.querySelectorAll("nav a").forEach(link => {
    if (link.getAttribute("href") === `#/${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  const title = { new: "New job", try: "Try a picture" }[part] ?? "Jobs";
  document.title = `${title} · CapFilt`;
  if (part === "new") showNew(shown.signal);
  else if (part === "try") showTry(shown.signal);
  else if (/^[0-9a-f]{16}$/.test(id ?? "")) showJob(id, shown.signal);
  else showJobs(shown.signal);
}

document.getElementById("forget").hidden = !sessionStorage.getItem("token");
document.getElementById("forget").addEventListener("click", () => { sessionStorage.removeItem("token"); location.reload(); });
addEventListener("hashchange", () => { route(); main.focus(); scrollTo(0, 0); });
// A picture that misses its place must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, event => event.preventDefault());
route();
