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
      const value = row => row.cells[index].dataset.value;
      const compare = (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b);
      const rows = [...table.tBodies[0].rows];
      // rows without a value stay at the end in both directions
      const empty = row => value(row) === "" || (numeric && Number.isNaN(Number(value(row))));
      rows.sort((a, b) => empty(a) - empty(b) || (empty(a) ? 0 : (descending ? -1 : 1) * compare(value(a), value(b))));
      table.tBodies[0].append(...rows);
    });
  });
}

// numbers in full precision; a score takes three columns: mean, half-width, and whether it is under-trained
function csv(table) {
  const quote = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const headings = [...table.tHead.rows[0].cells];
  const scores = headings.map(heading => heading.classList.contains("score"));
  const first = headings.flatMap((heading, index) => {
    const title = heading.textContent.trim();
    return scores[index] ? [title, `${title} ± 95 %`, `${title} under-trained`] : [title];
  });
  const rows = [...table.tBodies[0].rows].map(row => [...row.cells].flatMap((cell, index) => {
    const value = cell.dataset.value ?? cell.textContent.trim();
    if (!scores[index]) return [value];
    return [value, cell.dataset.halfWidth ?? "", value === "" ? "" : cell.querySelector(".mark") ? "yes" : "no"];
  }));
  return [first, ...rows].map(cells => cells.map(quote).join(",")).join("\n") + "\n";
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

for (const button of document.querySelectorAll("button.copy")) {
  const title = button.textContent;
  button.addEventListener("click", async () => {
    await copy(csv(document.getElementById(button.dataset.table)));
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = title; }, 1500);
  });
}

// what is folded is printed too
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
