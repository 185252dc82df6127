"""Style and script of a report's page; no libraries, nothing from the network."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fff; --text: #1c1e21; --soft: #5d6470; --line: #d9dce1; --card: #f6f7f9;
  --link: #0b57d0; --bad: #a8321e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181c; --text: #e6e7ea; --soft: #a2a8b3; --line: #363a42; --card: #1e2127;
    --link: #8ab4f8; --bad: #ff9c86;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; max-width: 84rem; background: var(--ground);
  color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1rem 0 .5rem; }
h5 { font-size: .95rem; margin: 0; overflow-wrap: anywhere; }
a { color: var(--link); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em; }
nav a { margin-right: 1rem; }
.soft { color: var(--soft); }
.sorry { color: var(--bad); margin: .25rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .25rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.doubt { color: var(--bad); }
.notes { padding-left: 1.2rem; overflow-wrap: anywhere; }
thead th { background: var(--card); }
#samples { width: 100%; }
.tall { max-height: 36rem; overflow: auto; border: 1px solid var(--line); }
.tall thead th { position: sticky; top: 0; }
th button {
  all: unset; cursor: pointer; font-weight: 600; white-space: nowrap;
}
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.controls { display: flex; flex-wrap: wrap; gap: 1rem; margin: .5rem 0; align-items: end; }
.controls label { display: grid; font-size: .85rem; color: var(--soft); }
select, input { font: inherit; padding: .2rem .4rem; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem; margin: 0 0 1rem;
}
.card:target { border-color: var(--link); }
.figures { margin: .1rem 0 .6rem; color: var(--soft); }
.figures b { color: var(--text); }
.side {
  display: grid; grid-template-columns: 16rem minmax(0, 1fr); gap: .3rem 1rem;
  align-items: center;
}
.side > div { min-width: 0; }
.side > div:nth-child(n+3) { margin-top: .4rem; }
.side p { margin: 0; }
video, audio { width: 100%; display: block; }
video { max-height: 12rem; background: #000; border-radius: 4px; }
img { width: 100%; height: auto; display: block; border-radius: 4px; }
@media (max-width: 50rem) { .side { grid-template-columns: 1fr; } }
.mark {
  display: inline-block; background: #150e37; border-radius: 4px; padding: 0 .4rem;
}
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; }
"""

# Sorts and filters the rows that the page holds; numbers sort by their full value, kept in
# `data-v`, and a cell without one always comes last.
SCRIPT = """
(() => {
  const table = document.getElementById("samples");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const system = document.getElementById("system");
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");

  const filter = () => {
    const wanted = search.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = (system.value === "" || row.dataset.system === system.value)
        && row.dataset.name.toLowerCase().includes(wanted);
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  };

  const sort = (head) => {
    const column = heads.indexOf(head);
    const numeric = head.classList.contains("number");
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const cell = row.cells[column];
      if (!numeric) return cell.textContent;
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    };
    const order = (a, b) => {
      if (!numeric) return a.localeCompare(b, "en", {numeric: true}) * (down ? -1 : 1);
      if (a === null || b === null) return (a === null) - (b === null);
      return (a - b) * (down ? -1 : 1) || 0;
    };
    body.append(...rows.sort((a, b) => order(value(a), value(b))));
  };

  for (const head of heads) head.firstElementChild.addEventListener("click", () => sort(head));
  system.addEventListener("change", filter);
  search.addEventListener("input", filter);
  document.getElementById("controls").hidden = false;
  filter();
})();
"""
