"use strict";
// A report is shown here, apart from the page that fetched it: this document has no origin, no cookies and no network.
addEventListener("message", event => {
  if (event.source !== parent || typeof event.data !== "string") return;
  document.open();
  document.write(event.data);
  document.close();
});
parent.postMessage("ready", "*");
