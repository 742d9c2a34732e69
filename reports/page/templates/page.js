"use strict";
document.documentElement.classList.add("script");
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const shown = cell => !cell.hidden && getComputedStyle(cell).display !== "none";
const valueOf = cell => cell.dataset.value ?? cell.textContent.trim();
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
addEventListener("hashchange", () => { reveal(); keep(""); });
// sorting: a click on a heading, best first; again, the other way round
function sort(table, index, descending) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach(other => other.removeAttribute("aria-sort"));
  headings[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
  const numeric = headings[index].classList.contains("number");
  const value = row => valueOf(row.cells[index]);
  const compare = (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b);
  // rows without a value stay at the end in both directions
  const empty = row => value(row) === "" || (numeric && Number.isNaN(Number(value(row))));
  const order = (a, b) => empty(a) - empty(b) || (empty(a) ? 0 : (descending ? -1 : 1) * compare(value(a), value(b)));
  // each group of rows keeps its place
  for (const body of table.tBodies) body.append(...[...body.rows].sort(order));
}
function sortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button"), words = heading.querySelector("span");
    button.type = "button";
    button.append(...(words ?? heading).childNodes);
    (words ?? heading).append(button);
    button.addEventListener("click", () => {
      const current = heading.getAttribute("aria-sort"), numeric = heading.classList.contains("number");
      const descending = current ? current === "ascending" : numeric && heading.dataset.first !== "up";
      sort(table, heading.cellIndex, descending);
      keep(`sort.${table.id}`, `${heading.cellIndex}${descending ? "-" : "+"}`);
    });
  }
}
// numbers in full precision; a score takes three columns: mean, half-width, and whether it is under-trained
function csv(table) {
  const quote = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const scores = [...table.tHead.rows[0].cells].map(heading => heading.classList.contains("score"));
  const line = (row, three) => [...row.cells].flatMap((cell, index) =>
    !shown(cell) ? [] : scores[index] ? three(valueOf(cell), cell) : [valueOf(cell)]);
  const head = line(table.tHead.rows[0], title => [title, `${title} ± 95 %`, `${title} under-trained`]);
  const rows = rowsOf(table).filter(shown).map(row => line(row, (value, cell) =>
    [value, cell.dataset.halfWidth ?? "", value === "" ? "" : cell.classList.contains("short") ? "yes" : "no"]));
  return [head, ...rows].map(cells => cells.map(quote).join(",")).join("\n") + "\n";
}
// the rows and columns that are shown, as they read
const told = row => [...row.cells].filter(cell => shown(cell) && !cell.classList.contains("record"));
const texts = row => told(row).map(cell => cell.textContent.trim());
const aligned = (table, right, left) => told(table.tHead.rows[0]).map(cell => cell.classList.contains("number") ? right : left);
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
const FORMS = {CSV: csv, Markdown: markdown, LaTeX: latex};
function filter(table, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rowsOf(table)) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
}
function tools(table) {
  const bar = document.createElement("div"), titles = [...table.tHead.rows[0].cells].slice(1);
  bar.className = "tools";
  bar.innerHTML = `<label>Filter <input type="search" class="filter" placeholder="text in a row"></label>
    <details class="columns"><summary>Columns</summary><div></div></details>
    ${Object.keys(FORMS).map(form => `<button type="button" class="copy" data-form="${form}">${form}</button>`).join("")}`;
  bar.dataset.table = table.id;
  table.parentElement.before(bar);
  const input = bar.querySelector("input");
  input.value = chosen.get(`filter.${table.id}`) ?? "";
  input.addEventListener("input", () => {
    filter(table, input.value);
    keep(`filter.${table.id}`, input.value);
  });
  bar.querySelector("details").addEventListener("toggle", event => event.target.querySelector("div").append(...titles.map(heading => {
    const label = document.createElement("label"), box = document.createElement("input");
    Object.assign(box, {type: "checkbox", checked: true});
    box.addEventListener("change", () => { for (const row of table.rows) row.cells[heading.cellIndex].hidden = !box.checked; });
    label.append(box, heading.textContent.trim());
    return label;
  })), {once: true});
}
// a table gets its buttons when it is first seen
const seen = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    sortable(target);
    if (target.classList.contains("tooled")) tools(target);
    for (const cell of all("[data-command]", target)) cell.append(" ", Object.assign(document.createElement("button"),
      {type: "button", className: "copy", title: cell.dataset.command, textContent: "command"}));
  }
});
for (const table of all("table.sortable")) {
  const [, column, way] = /^(\d+)([+-])$/.exec(chosen.get(`sort.${table.id}`)) ?? [];
  if (table.tHead.rows[0].cells[column]) sort(table, Number(column), way === "-");
  filter(table, chosen.get(`filter.${table.id}`) ?? "");
  seen.observe(table);
}
for (const further of all("#further-tests")) {
  const show = () => document.querySelector("table.heat").classList.toggle("all", further.checked);
  further.checked = chosen.has("all");
  show();
  further.addEventListener("change", () => {
    show();
    keep("all", further.checked ? "1" : "");
  });
}
addEventListener("keydown", event => { if (event.key === "Escape") for (const one of all(".columns[open]")) one.open = false; });
// an entry of a legend dims all other methods on the page: every mark and row has the colour variable of its method
const dimming = document.head.appendChild(document.createElement("style"));
function dim(name) {
  const buttons = all(".legend button"), pressed = buttons.find(button => button.textContent === name);
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === name));
  const [one, any] = /(\w+-)\d+/.exec(pressed?.className) ?? [];
  const others = `[style*="(--${any}"]:not([style*="(--${one})"])`, rows = `tr:has(> th[class*="${any}"]:not(.${one}))`;
  dimming.textContent = pressed ? `@media screen { figure svg ${others}, ${rows} { opacity: .12 !important; } }` : "";
}
for (const entry of all(".legend span")) {
  const button = document.createElement("button");
  Object.assign(button, {type: "button", title: "Dim the others", className: entry.className});
  button.append(...entry.childNodes);
  entry.replaceWith(button);
  button.addEventListener("click", () => {
    const name = button.getAttribute("aria-pressed") === "true" ? "" : button.textContent;
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
  const places = () => {
    const at = svg.getBoundingClientRect(), scale = at.width / svg.viewBox.baseVal.width;
    return marks.map(([left, top]) => [at.left + left * scale, at.top + top * scale]);
  };
  const tell = number => {
    const [, , name, value, amount] = marks[place = number], [left, top] = places()[number];
    tip.textContent = [name, `${y}: ${value}`, ...(amount ? [`${x}: ${amount}`] : [])].join("\n");
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(left + 10, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${top + 12}px`;
  };
  const hide = () => { tip.hidden = true; };
  svg.tabIndex = 0;
  svg.addEventListener("pointermove", event => {
    const away = places().map(([left, top]) => Math.hypot(left - event.clientX, top - event.clientY));
    const nearest = Math.min(...away);
    if (nearest < 24) tell(away.indexOf(nearest));
    else hide();
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) tell(Math.max(place, 0)); });
  svg.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    tell((place + step + marks.length) % marks.length);
  });
}
addEventListener("click", async event => {
  const button = event.target.closest?.("button.copy");
  if (!button || button.textContent === "Copied") return;
  const title = button.textContent, table = document.getElementById(button.closest(".tools")?.dataset.table);
  const text = table ? FORMS[button.dataset.form](table) : button.title;
  await navigator.clipboard.writeText(text).catch(() => prompt("This browser copies nothing by itself:", text));
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = title; }, 1500);
});
// folded parts are printed too
addEventListener("beforeprint", () => all("details:not(.columns, .screen)").forEach(one => { one.open = true; }));
reveal();
