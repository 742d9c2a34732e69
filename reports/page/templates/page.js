"use strict";
document.documentElement.classList.add("script");
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const shown = cell => !cell.hidden && getComputedStyle(cell).display !== "none";
const rowsOf = table => [...table.tBodies].filter(body => !body.classList.contains("group")).flatMap(body => [...body.rows]);

// the reader's choices stand in the address: #anchor&sort.TABLE=COLUMN&filter.TABLE=WORDS&only=METHOD&all=1
const parts = () => location.hash.slice(1).split("&").filter(Boolean);
const anchor = () => parts().find(part => !part.includes("=")) ?? "";
const chosen = new URLSearchParams(parts().filter(part => part.includes("=")).join("&"));
function keep(name, value) {
  if (value) chosen.set(name, value);
  else chosen.delete(name);
  history.replaceState(null, "", "#" + [anchor(), chosen.toString()].filter(Boolean).join("&"));
}
function reveal() {
  const target = document.getElementById(decodeURIComponent(anchor()));
  if (!target) return;
  for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", () => {
  reveal();
  keep("");
});

// sorting: a click on a heading, best first; again, the other way round
function sort(table, index, descending) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach(other => other.removeAttribute("aria-sort"));
  headings[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
  const numeric = headings[index].classList.contains("number");
  const value = row => row.cells[index].dataset.value ?? row.cells[index].textContent.trim();
  const compare = (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b);
  // rows without a value stay at the end in both directions
  const empty = row => value(row) === "" || (numeric && Number.isNaN(Number(value(row))));
  const order = (a, b) => empty(a) - empty(b) || (empty(a) ? 0 : (descending ? -1 : 1) * compare(value(a), value(b)));
  // each group of rows keeps its place
  for (const body of table.tBodies) body.append(...[...body.rows].sort(order));
}
for (const table of all("table.sortable")) {
  table.tHead.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    const heading = button.closest("th"), current = heading.getAttribute("aria-sort");
    const descending = current ? current === "ascending" : button.dataset.descending === "true";
    sort(table, heading.cellIndex, descending);
    keep(`sort.${table.id}`, `${heading.cellIndex}${descending ? "-" : "+"}`);
  });
  const before = /^(\d+)([+-])$/.exec(chosen.get(`sort.${table.id}`));
  if (before && table.tHead.rows[0].cells[before[1]]) sort(table, Number(before[1]), before[2] === "-");
}

// numbers in full precision; a score takes three columns: mean, half-width, and whether it is under-trained
function csv(table) {
  const quote = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const headings = [...table.tHead.rows[0].cells];
  const scores = headings.map(heading => heading.classList.contains("score"));
  const first = headings.flatMap((heading, index) => {
    if (!shown(heading)) return [];
    const title = heading.textContent.trim();
    return scores[index] ? [title, `${title} ± 95 %`, `${title} under-trained`] : [title];
  });
  const rows = rowsOf(table).filter(shown).map(row => [...row.cells].flatMap((cell, index) => {
    if (!shown(cell)) return [];
    const value = cell.dataset.value ?? cell.textContent.trim();
    if (!scores[index]) return [value];
    return [value, cell.dataset.halfWidth ?? "", value === "" ? "" : cell.querySelector(".mark") ? "yes" : "no"];
  }));
  return [first, ...rows].map(cells => cells.map(quote).join(",")).join("\n") + "\n";
}

// the rows and columns that are shown, as they read
const texts = row => [...row.cells].filter(shown).map(cell => cell.textContent.trim());
const aligned = (table, right, left) => [...table.tHead.rows[0].cells].filter(shown).map(cell => cell.classList.contains("number") ? right : left);
function latex(table) {
  const names = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "†": "$\\dagger$", "−": "$-$", "–": "--"};
  const escape = text => text.replace(/[\\~^±†−–&%$#_{}]/g, one => names[one] ?? `\\${one}`);
  const line = row => texts(row).map(escape).join(" & ") + " \\\\";
  const rows = rowsOf(table).filter(shown).map(line), columns = aligned(table, "r", "l").join("");
  return [`\\begin{tabular}{${columns}}`, "\\toprule", line(table.tHead.rows[0]), "\\midrule", ...rows, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}
function markdown(table) {
  const line = cells => `| ${cells.map(text => text.replaceAll("|", "\\|")).join(" | ")} |`;
  return [texts(table.tHead.rows[0]), aligned(table, "---:", "---"), ...rowsOf(table).filter(shown).map(texts)].map(line).join("\n") + "\n";
}
const FORMS = {csv, latex, md: markdown};

for (const tools of all(".tools")) {
  const table = document.getElementById(tools.dataset.table), input = tools.querySelector(".filter");
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rowsOf(table)) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  };
  input.value = chosen.get(`filter.${table.id}`) ?? "";
  if (input.value) filter();
  input.addEventListener("input", () => {
    filter();
    keep(`filter.${table.id}`, input.value);
  });
  tools.querySelector(".columns").addEventListener("toggle", event => {
    const boxes = [...table.tHead.rows[0].cells].slice(1).map(heading => {
      const label = document.createElement("label"), box = document.createElement("input");
      Object.assign(box, {type: "checkbox", checked: true});
      box.addEventListener("change", () => { for (const row of table.rows) row.cells[heading.cellIndex].hidden = !box.checked; });
      label.append(box, heading.textContent.trim());
      return label;
    });
    event.target.querySelector("div").append(...boxes);
  }, {once: true});
}
const further = document.getElementById("further-tests");
if (further) {
  const show = () => document.querySelector("table.heat").classList.toggle("all", further.checked);
  further.checked = chosen.has("all");
  show();
  further.addEventListener("change", () => {
    show();
    keep("all", further.checked ? "1" : "");
  });
}
addEventListener("keydown", event => {
  if (event.key === "Escape") all(".columns[open]").forEach(one => { one.open = false; });
});

// an entry of a legend dims all other methods on the page: every mark and row has the colour variable of its method
const dimming = document.head.appendChild(document.createElement("style"));
const variableOf = button => button.querySelector("path").getAttribute("fill").slice(4, -1);
function dim(name) {
  all(".legend button").forEach(one => one.setAttribute("aria-pressed", String(one.textContent.trim() === name)));
  const pressed = document.querySelector('.legend button[aria-pressed="true"]');
  if (!pressed) return dimming.replaceChildren();
  const one = variableOf(pressed), any = one.replace(/\d+$/, "");
  const marks = `figure svg [style*="(${any}"]:not([style*="(${one})"])`;
  const rows = `tbody tr:has(> th path[fill^="var(${any}"]):not(:has(> th path[fill="var(${one})"]))`;
  dimming.textContent = `@media screen { ${marks} { opacity: .1 !important; } ${rows} { opacity: .35; } }`;
}
for (const entry of all(".legend li")) {
  const button = document.createElement("button");
  Object.assign(button, {type: "button", title: "Dim the others"});
  button.append(...entry.childNodes);
  entry.append(button);
  button.addEventListener("click", () => {
    const name = button.getAttribute("aria-pressed") === "true" ? "" : button.textContent.trim();
    dim(name);
    keep("only", name);
  });
}
dim(chosen.get("only") ?? "");

// the values of the mark nearest to the pointer; in a figure with the focus, arrow keys go from mark to mark
const tip = document.body.appendChild(document.createElement("div"));
Object.assign(tip, {className: "tip", hidden: true, role: "status"});
for (const figure of all("figure[data-tips]")) {
  const svg = figure.querySelector("svg"), {x, y, marks} = JSON.parse(figure.dataset.tips);
  let place = -1;
  const tell = number => {
    const [left, top, name, value, amount] = marks[place = number], at = svg.getBoundingClientRect();
    const scale = at.width / svg.viewBox.baseVal.width;
    tip.textContent = [name, `${y}: ${value}`, ...(amount ? [`${x}: ${amount}`] : [])].join("\n");
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(at.left + left * scale + 10, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${at.top + top * scale + 12}px`;
  };
  const hide = () => { tip.hidden = true; };
  svg.tabIndex = 0;
  svg.addEventListener("pointermove", event => {
    const at = svg.getBoundingClientRect(), scale = at.width / svg.viewBox.baseVal.width;
    const away = marks.map(([left, top]) => Math.hypot(left * scale - event.clientX + at.left, top * scale - event.clientY + at.top));
    const nearest = away.indexOf(Math.min(...away));
    if (away[nearest] < 24) tell(nearest);
    else hide();
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) tell(Math.max(place, 0)); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    tell((place + step + marks.length) % marks.length);
  });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // some browsers refuse the clipboard to a page opened from a file
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
addEventListener("click", async event => {
  const button = event.target.closest?.("button.copy");
  if (!button || button.textContent === "Copied") return;
  const title = button.textContent, tools = button.closest(".tools");
  await copy(tools ? FORMS[button.dataset.form](document.getElementById(tools.dataset.table)) : button.title);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = title; }, 1500);
});

// folded parts are printed too
addEventListener("beforeprint", () => all("details:not(.columns, .screen)").forEach(one => { one.open = true; }));
reveal();
