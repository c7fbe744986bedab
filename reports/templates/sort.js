// A click on a column's name sorts its table: numbers by their full value, the rest as text.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.sort;
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (x !== undefined && y !== undefined) return number(x) - number(y);
      if (x !== undefined || y !== undefined) return x === undefined ? -1 : 1;
      return row_text(a, column).localeCompare(row_text(b, column));
    };
    const rows = [...body.rows].sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
    body.append(...rows);
  });
}
function number(text) {
  return Number(text.replace("inf", "Infinity"));
}
function row_text(row, column) {
  return row.cells[column].textContent;
}
