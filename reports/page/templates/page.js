"use strict";
// sorting: a click on a heading, best first; again, the other way round
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, index) => {
    heading.querySelector("button").addEventListener("click", event => {
      const descendingFirst = event.currentTarget.dataset.descending === "true";
      const current = heading.getAttribute("aria-sort");
      const descending = current ? current === "ascending" : descendingFirst;
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const numeric = heading.classList.contains("number");
      const value = row => row.cells[index].dataset.value ?? row.cells[index].textContent.trim();
      const compare = (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b);
      // rows without a value stay at the end in both directions
      const empty = row => value(row) === "" || (numeric && Number.isNaN(Number(value(row))));
      const order = (a, b) => empty(a) - empty(b) || (empty(a) ? 0 : (descending ? -1 : 1) * compare(value(a), value(b)));
      // each group of rows keeps its place
      for (const body of table.tBodies) body.append(...[...body.rows].sort(order));
    });
  });
}

const shown = cell => !cell.hidden && getComputedStyle(cell).display !== "none";
const rowsOf = table => [...table.tBodies].filter(body => !body.classList.contains("group")).flatMap(body => [...body.rows]);

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
function latex(table) {
  const names = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "†": "$\\dagger$", "−": "$-$", "–": "--"};
  const escape = text => text.replace(/[&%$#_{}]/g, "\\$&").replace(/[~^±†−–]/g, one => names[one]);
  const line = row => [...row.cells].filter(shown).map(cell => escape(cell.textContent.trim())).join(" & ") + " \\\\";
  const head = table.tHead.rows[0];
  const align = [...head.cells].filter(shown).map(cell => cell.classList.contains("number") ? "r" : "l").join("");
  const rows = rowsOf(table).filter(shown).map(line);
  return ["\\begin{tabular}{" + align + "}", "\\toprule", line(head), "\\midrule", ...rows, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function markdown(table) {
  const line = cells => `| ${cells.join(" | ")} |`;
  const texts = row => [...row.cells].filter(shown).map(cell => cell.textContent.trim().replaceAll("|", "\\|"));
  const head = table.tHead.rows[0];
  const rule = [...head.cells].filter(shown).map(cell => cell.classList.contains("number") ? "---:" : "---");
  return [line(texts(head)), line(rule), ...rowsOf(table).filter(shown).map(row => line(texts(row)))].join("\n") + "\n";
}
const FORMS = {csv, latex, md: markdown};

for (const tools of document.querySelectorAll(".tools")) {
  const table = document.getElementById(tools.dataset.table);
  tools.querySelector(".filter").addEventListener("input", event => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rowsOf(table)) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
  });
  for (const box of tools.querySelectorAll("[data-column]")) {
    box.addEventListener("change", () => {
      for (const row of table.rows) row.cells[box.dataset.column].hidden = !box.checked;
    });
  }
}
document.getElementById("further-tests")?.addEventListener("change", event => {
  document.querySelector("table.heat").classList.toggle("all", event.target.checked);
});
addEventListener("keydown", event => {
  if (event.key === "Escape") document.querySelectorAll(".columns[open]").forEach(one => { one.open = false; });
});

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

for (const button of document.querySelectorAll("button.copy")) {
  const title = button.textContent;
  button.addEventListener("click", async () => {
    const table = document.getElementById(button.closest(".tools").dataset.table);
    await copy(FORMS[button.dataset.form](table));
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = title; }, 1500);
  });
}

// what is folded is printed too
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.columns, .screen)").forEach(one => { one.open = true; }));
