'use strict';
// Sorting and filtering of tables. `data-v` of a cell is its unformatted number.
for (const box of document.querySelectorAll('.table')) {
  const body = box.querySelector('tbody');
  const rows = [...body.rows];

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return cell.textContent === '–' ? null : cell.textContent;
  };

  const compare = (a, b) =>
    typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true });

  const sort = header => {
    // Numbers are first sorted in descending order, texts in ascending order.
    const first = header.classList.contains('n') ? 'descending' : 'ascending';
    const other = first === 'ascending' ? 'descending' : 'ascending';
    const direction = header.getAttribute('aria-sort') === first ? other : first;
    for (const cell of header.parentNode.cells) cell.removeAttribute('aria-sort');
    header.setAttribute('aria-sort', direction);
    const sign = direction === 'ascending' ? 1 : -1;
    const keyed = rows.map(row => [keyOf(row, header.cellIndex), row]);
    // Unknown values come last in both directions.
    keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
  };

  box.querySelector('thead').addEventListener('click', event => {
    const button = event.target.closest('button');
    if (button) sort(button.closest('th'));
  });

  const form = box.querySelector('form');
  if (!form) continue;
  const filter = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...form.querySelectorAll('select')].filter(select => select.value);
    let shown = 0;
    for (const row of rows) {
      const text = words.length ? row.textContent.toLowerCase() : '';
      row.hidden = !(
        words.every(word => text.includes(word)) &&
        chosen.every(select => row.cells[select.dataset.column].textContent === select.value)
      );
      shown += !row.hidden;
    }
    form.querySelector('output').textContent = `${shown} of ${rows.length} rows`;
  };
  form.addEventListener('input', filter);
  form.addEventListener('submit', event => event.preventDefault());
  // The fields are cleared after this event.
  form.addEventListener('reset', () => setTimeout(filter));
}
