"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // What stands under the pointer or the focus, in words.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.style.visibility = text ? "visible" : "hidden";
    tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = Math.max(4, Math.min(y + 14, innerHeight - tip.offsetHeight - 4)) + "px";
  };
  document.addEventListener("pointermove", event => {
    const at = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (at) show(at.dataset.tip, event.clientX, event.clientY);
    else if (!(event.target.closest && event.target.closest("svg.curve"))) show("", 0, 0);
  });
  document.addEventListener("focusin", event => {
    const text = event.target.dataset ? event.target.dataset.tip : "";
    const box = event.target.getBoundingClientRect();
    show(text || "", box.left, box.bottom);
  });
  document.addEventListener("keydown", event => { if (event.key === "Escape") show("", 0, 0); });

  // A category or dataflow that is pressed stands out from the others.
  for (const button of all(".keys button[data-key]")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      const root = button.closest("details.sec, body");
      for (const other of all(".keys button[data-key]", root)) other.setAttribute("aria-pressed", String(on && other === button));
      for (const piece of all("[data-part]", root)) piece.classList.toggle("dim", on && piece.dataset.part !== button.dataset.key);
    });
  }

  // Tables sort by a column: numbers by value, anything else by letter; rows of totals stay at the end.
  const value = text => {
    const number = parseFloat(text.replace(/[,\s<]/g, ""));
    return Number.isNaN(number) ? null : number;
  };
  for (const table of all("table.sort")) {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = all("tr:not(.total)", body);
        const cell = row => (row.cells[column] ? row.cells[column].textContent.trim() : "");
        rows.sort((a, b) => {
          const [x, y] = [value(cell(a)), value(cell(b))];
          const order = x !== null && y !== null ? x - y : cell(a).localeCompare(cell(b));
          return up ? order : -order;
        });
        body.append(...rows, ...all("tr.total", body));
      });
    });
  }

  // Curves over time: the values at the pointer.
  for (const svg of all("svg.curve")) {
    const data = JSON.parse(svg.dataset.series);
    const cross = svg.querySelector(".cross");
    const at = (share, x, y) => {
      const steps = data.edges.length - 1, time = share * data.edges[steps];
      let step = data.edges.findIndex(edge => edge > time) - 1;
      if (step < 0) step = steps - 1;
      const lines = Object.entries(data.values).map(([name, values]) => `${name} ${values[step].toLocaleString("en")} GB/s`);
      show(`${data.edges[step].toFixed(2)} to ${data.edges[step + 1].toFixed(2)} us\n${lines.join("\n")}`, x, y);
      const place = share * svg.viewBox.baseVal.width;
      cross.setAttribute("x1", place);
      cross.setAttribute("x2", place);
      cross.style.visibility = "visible";
    };
    let share = 0.5;
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect();
      share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      at(share, event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", () => { cross.style.visibility = "hidden"; show("", 0, 0); });
    svg.addEventListener("keydown", event => {
      const by = {ArrowLeft: -0.02, ArrowRight: 0.02}[event.key];
      if (!by) return;
      event.preventDefault();
      share = Math.min(0.999, Math.max(0, share + by));
      const box = svg.getBoundingClientRect();
      at(share, box.left + share * box.width, box.top);
    });
  }

  // The timeline: wheel, buttons and keys zoom and move.
  for (const view of all(".zoom")) {
    const svg = view.querySelector("svg"), label = view.parentNode.querySelector(".range");
    const [begin, end] = [Number(svg.dataset.begin), Number(svg.dataset.end)];
    const height = svg.viewBox.baseVal.height, clock = Number(svg.dataset.clock);
    let [left, width] = [begin, end - begin];
    const draw = () => {
      width = Math.min(end - begin, Math.max(40, width));
      left = Math.min(end - width, Math.max(begin, left));
      svg.setAttribute("viewBox", `${left - begin} 0 ${width} ${height}`);
      label.textContent = `${(left / clock).toFixed(2)} to ${((left + width) / clock).toFixed(2)} us`;
    };
    const zoom = (factor, share = 0.5) => { const at = left + share * width; width *= factor;
      width = Math.min(end - begin, Math.max(40, width)); left = at - share * width; draw(); };
    svg.addEventListener("wheel", event => {
      event.preventDefault();
      const box = svg.getBoundingClientRect();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width);
    }, {passive: false});
    let from = null;
    svg.addEventListener("pointerdown", event => { from = event.clientX; svg.setPointerCapture(event.pointerId); });
    svg.addEventListener("pointerup", () => { from = null; });
    svg.addEventListener("pointermove", event => {
      if (from === null) return;
      left -= (event.clientX - from) / svg.getBoundingClientRect().width * width;
      from = event.clientX;
      draw();
    });
    const act = {"+": () => zoom(0.5), "-": () => zoom(2), ArrowLeft: () => { left -= width / 4; draw(); },
      ArrowRight: () => { left += width / 4; draw(); }, "0": () => { [left, width] = [begin, end - begin]; draw(); }};
    svg.addEventListener("keydown", event => { if (act[event.key]) { event.preventDefault(); act[event.key](); } });
    for (const button of all(".tools button", view.parentNode)) button.addEventListener("click", () => act[button.dataset.act]());
    draw();
  }

  // Paper shows everything; so does a link to a section that is folded.
  addEventListener("beforeprint", () => { for (const item of all("details.sec")) item.open = true; });
  const open = () => { const item = document.getElementById(location.hash.slice(1)); if (item && "open" in item) item.open = true; };
  addEventListener("hashchange", open);
  open();
})();
