// As much of a browser as the page of a listening test uses. Reads a JSON job on standard input:
// {"page": text of index.html, "visits": [{"listener", "most", "online", "search"}]}; each visit
// opens the page anew with the same localStorage and answers at most so many questions. Prints
// {"sent": lines that arrived, "kept": localStorage, "seen": [[kind text, clips], ...],
//  "downloads": [...], "last": texts of the last screen}.
"use strict";
const vm = require("vm");
const job = JSON.parse(require("fs").readFileSync(0, "utf8"));
const between = (start, end) => job.page.split(start)[1].split(end)[0];
const data = between('id="test">', "</script>");
const script = job.page.split("<script>")[1].split("</script>")[0];
const kept = new Map();
const out = {sent: [], seen: [], downloads: [], last: [], early: 0};

class Node {
  constructor(tag) { this.tag = tag; this.children = []; this.acts = {}; this.attributes = {}; }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  addEventListener(name, act) { (this.acts[name] ??= []).push(act); }
  setAttribute(name, value) { this.attributes[name] = value; }
  fire(name) { for (const act of this.acts[name] ?? []) act({}); }
  click() {
    if (this.tag === "a") out.downloads.push(blobs.get(this.href));
    else if (!this.disabled) this.fire("click");
  }
  all(tag) {
    const own = this.children.filter((one) => one instanceof Node);
    return own.flatMap((one) => [...(one.tag === tag ? [one] : []), ...one.all(tag)]);
  }
  text() {
    const own = this.children.map((one) => (one instanceof Node ? one.text() : one));
    return [this.textContent ?? "", ...own].join(" ");
  }
}
const blobs = new Map();

const visit = async ({listener, most, online, search}) => {
  const root = new Node("div");
  const page = {
    document: {
      createElement: (tag) => new Node(tag),
      getElementById: (id) => (id === "test" ? {textContent: data} : root),
    },
    localStorage: {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, text) => kept.set(key, text),
    },
    location: {protocol: online === null ? "file:" : "http:", search: search ?? ""},
    crypto: {getRandomValues: (array) => array},
    fetch: async (url, {body, headers}) => {
      if (!online) throw new Error("offline");
      if (url !== "answers" || headers["Content-Type"] !== "application/x-ndjson") throw new Error();
      out.sent.push(...body.trimEnd().split("\n"));
      return {ok: true};
    },
    URL: {createObjectURL: (blob) => { blobs.set("blob", blob.text); return "blob"; },
          revokeObjectURL: () => {}},
    Blob: class { constructor(parts) { this.text = parts.join(""); } },
    URLSearchParams, setTimeout: (act) => setImmediate(act), Math, Date, JSON,
  };
  vm.runInNewContext(script, page);
  root.all("input")[0].value = listener;
  root.all("button")[0].click();
  const settle = async () => { for (let k = 0; k < 20; k += 1) await new Promise(setImmediate); };
  for (let count = 0; count < most && root.all("fieldset").length; count += 1) {
    const players = [...root.all("audio"), ...root.all("video")];
    const options = root.all("input"), go = root.all("button")[0];
    out.seen.push([root.all("legend")[0].textContent, players.map((one) => one.src)]);
    options[count % 2].fire("change");
    out.early += go.disabled ? 0 : 1;  // before the clips were heard
    for (const one of players) one.fire(listener === "deaf" ? "error" : "ended");
    if (listener === "deaf") root.all("input").at(-1).fire("change");
    go.click();
    await settle();
  }
  await settle();
  const download = root.all("button").find((one) => one.textContent.startsWith("Download"));
  if (download) download.click();
  out.last.push(root.text());
};

(async () => {
  for (const one of job.visits) await visit(one);
  console.log(JSON.stringify({...out, kept: Object.fromEntries(kept)}));
})();
