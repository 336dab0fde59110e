// The circle: draws a ring in an SVG element, and tells which node is pointed at.
// Owns everything inside the element; knows nothing of where the ring comes from.

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 150;
const INNER = 126;
const MOST_LABELS = 24;

const polar = (place, radius) => {
  const angle = 2 * Math.PI * place - Math.PI / 2;
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
};

const n = (number) => number.toFixed(2);

/** The path of a clockwise arc; places are fractions of the circle. */
const arc = (from, span, radius) => {
  const [x, y] = polar(from, radius);
  const turn = (place, part) => {
    const [toX, toY] = polar(place, radius);
    return `A${radius} ${radius} 0 ${part > 0.5 ? 1 : 0} 1 ${n(toX)} ${n(toY)}`;
  };
  const way = span > 0.999
    ? turn(from + 0.5, 0.5) + turn(from + 1, 0.5)
    : turn(from + span, span);
  return `M${n(x)} ${n(y)}${way}`;
};

const make = (name, className = "") => {
  const element = document.createElementNS(SVG, name);
  if (className) element.setAttribute("class", className);
  return element;
};

const set = (element, attributes) => {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

/** Keep one element for each item, so that focus and transitions survive; returns them by id. */
const keep = (parent, items, known, create) => {
  const present = new Set(items.map((item) => item.id));
  for (const [id, element] of known) {
    if (!present.has(id)) {
      element.remove();
      known.delete(id);
    }
  }
  for (const item of items) {
    if (!known.has(item.id)) known.set(item.id, create(item));
    parent.append(...(known.get(item.id).parentNode ? [] : [known.get(item.id)]));
  }
};

export class Circle {
  /**
   * @param {SVGSVGElement} svg
   * @param {(id: string | null) => void} pointed  at which node the pointer or the focus is
   * @param {(id: string) => void} chosen  which node was clicked
   */
  constructor(svg, pointed, chosen) {
    this.svg = svg;
    this.pointed = pointed;
    this.chosen = chosen;
    this.arcs = new Map();
    this.dots = new Map();
    this.nodes = [];
    this.part = Object.fromEntries(
      ["arcs", "weak", "fingers", "found", "dots", "rate", "spark"]
        .map((name) => [name, svg.querySelector(`#${name}`)]),
    );
    this.narrow = matchMedia("(max-width: 32rem)");
    this.fit();
    this.narrow.addEventListener("change", () => this.fit());
    this.part.dots.addEventListener("keydown", (event) => this.onKey(event));
  }

  fit() {
    const [x, y] = this.narrow.matches ? [200, 196] : [300, 192];
    set(this.svg, { viewBox: `${-x} ${-y} ${2 * x} ${2 * y}` });
    this.labels();
  }

  /** Draw the ring as it is now. */
  draw(ring) {
    this.nodes = ring.nodes;
    const onCircle = ring.nodes.filter((node) => node.onCircle);
    this.drawArcs(onCircle);
    this.drawWeak(ring.groups.weak);
    keep(this.part.dots, ring.nodes, this.dots, (node) => this.newDot(node));
    const tabbable = this.tabbable();
    this.svg.classList.toggle("crowded", ring.nodes.length > MOST_LABELS);
    for (const node of ring.nodes) {
      const dot = this.dots.get(node.id);
      const [x, y] = polar(node.place, RADIUS);
      set(dot, {
        transform: `translate(${n(x)} ${n(y)})`,
        "aria-label": node.spoken,
        tabindex: node.id === tabbable ? 0 : -1,
      });
      for (const state of ["here", "leaving", "silent"]) dot.classList.toggle(state, node[state]);
    }
    this.labels();
  }

  drawArcs(nodes) {
    const top = Math.max(...nodes.map((node) => node.share), 0);
    keep(this.part.arcs, nodes, this.arcs, () => make("path"));
    nodes.forEach((node, index) => {
      const before = nodes.at(index - 1).place;
      const span = nodes.length === 1 ? 1 : (node.place - before + 1) % 1 || 1;
      const gap = Math.min(0.0025, span / 6);
      const path = this.arcs.get(node.id);
      path.setAttribute("d", arc(before + gap, Math.max(span - 2 * gap, 1e-4), RADIUS));
      path.style.setProperty("--share", top ? node.share / top : 0);
    });
  }

  drawWeak(slices) {
    this.part.weak.replaceChildren(...slices.map((slice) => set(
      make("path", slice.living < slice.quorum ? "lost" : ""),
      { d: arc(slice.from, slice.to - slice.from, INNER) },
    )));
  }

  newDot(node) {
    const dot = set(make("g"), { role: "button", tabindex: -1 });
    dot.append(
      set(make("circle", "hit"), { r: 18 }),
      set(make("circle", "halo"), { r: 14 }),
      set(make("circle", "mark"), { r: 8 }),
      make("line", "leader"),
      make("text", "name"), " ", make("text", "address"),
    );
    dot.addEventListener("pointerenter", () => this.pointed(node.id));
    dot.addEventListener("pointerleave", () => this.pointed(null));
    dot.addEventListener("focus", () => this.pointed(node.id));
    dot.addEventListener("blur", () => this.pointed(null));
    dot.addEventListener("click", () => this.chosen(node.id));
    return dot;
  }

  /** Names beside the nodes, pushed apart where they would cover each other. */
  labels() {
    const crowded = this.nodes.length > MOST_LABELS;
    const two = !this.narrow.matches;
    for (const side of [1, -1]) {
      const mine = this.nodes
        .map((node) => ({ node, at: polar(node.place, RADIUS) }))
        .filter(({ at }) => (at[0] >= 0 ? 1 : -1) === side)
        .sort((a, b) => a.at[1] - b.at[1]);
      const shown = mine.filter(({ node }) => !crowded || node.here || node.silent || node.active);
      const gap = two ? 30 : 20;
      const heights = shown.map(({ at }) => at[1] * (RADIUS + 30) / RADIUS);
      for (let round = 0; round < 40; round += 1) {
        for (let i = 1; i < heights.length; i += 1) {
          const missing = gap - (heights[i] - heights[i - 1]);
          if (missing > 0) {
            heights[i - 1] -= missing / 2;
            heights[i] += missing / 2;
          }
        }
      }
      for (const { node } of mine) this.label(node, side, null);
      shown.forEach(({ node, at }, index) => {
        const y = Math.max(-178, Math.min(178, heights[index]));
        const outside = Math.sqrt(Math.max((RADIUS + 24) ** 2 - y * y, 0));
        const x = side * Math.max(outside, Math.abs(at[0]) + 2, 14);
        this.label(node, side, [x - at[0], y - at[1]], two);
      });
    }
  }

  label(node, side, at, two = false) {
    const dot = this.dots.get(node.id);
    if (!dot) return;
    const [name, address, leader] = ["name", "address", "leader"].map((c) => dot.querySelector(`.${c}`));
    name.textContent = at ? node.label : "";
    address.textContent = at && two ? node.address : "";
    leader.setAttribute("display", at && Math.hypot(...at) > 36 ? "inline" : "none");
    if (!at) return;
    const anchor = side > 0 ? "start" : "end";
    set(name, { x: n(at[0]), y: n(at[1] - (two ? 7 : 0)), "text-anchor": anchor });
    set(address, { x: n(at[0]), y: n(at[1] + 8), "text-anchor": anchor });
    const length = Math.hypot(...at);
    set(leader, {
      x1: n(at[0] * 12 / length), y1: n(at[1] * 12 / length),
      x2: n(at[0] - side * 4), y2: n(at[1]),
    });
  }

  /** Show one node's fingers, or none. */
  point(id) {
    this.svg.classList.toggle("pointing", id !== null);
    const byId = new Map(this.nodes.map((node) => [node.id, node]));
    for (const node of this.nodes) {
      node.active = node.id === id;
      this.dots.get(node.id)?.classList.toggle("active", node.active);
      this.arcs.get(node.id)?.classList.toggle("active", node.active);
    }
    const node = byId.get(id);
    const lines = [];
    if (node?.onCircle) {
      const next = byId.get(node.successors[0]);
      if (next && next.id !== id) {
        const span = (next.place - node.place + 1) % 1;
        lines.push(set(make("path", "next"), { d: arc(node.place, span, RADIUS + 15) }));
      }
      for (const finger of node.fingers) {
        const to = byId.get(finger);
        if (to && to.id !== id) lines.push(set(make("path"), { d: chord(node.place, to.place) }));
      }
    }
    this.part.fingers.replaceChildren(...lines);
    if (this.nodes.length > MOST_LABELS) this.labels();
  }

  /** Show where a key lives: its place, and lines to the nodes that keep it; null: none. */
  find(found) {
    const keepers = new Set(found ? found.nodes.map((node) => node.id) : []);
    for (const [id, dot] of this.dots) dot.classList.toggle("keeps", keepers.has(id));
    if (!found) {
      this.part.found.replaceChildren();
      return;
    }
    const [x, y] = polar(found.place, INNER);
    const lines = this.nodes
      .filter((node) => keepers.has(node.id))
      .map((node) => set(make("path"), { d: chord(found.place, node.place, INNER - 10) }));
    const mark = set(make("rect"), {
      x: -7, y: -7, width: 14, height: 14, transform: `translate(${n(x)} ${n(y)}) rotate(45)`,
    });
    this.part.found.replaceChildren(...lines, mark);
  }

  /** The centre: operations per second now, and lately. */
  rates(text, history) {
    this.part.rate.textContent = text;
    const top = Math.max(...history, 1);
    const points = history.map((rate, index) => `${n(60 - 2 * (history.length - 1 - index))},${n(58 - 26 * rate / top)}`);
    this.part.spark.setAttribute("points", history.length > 1 ? points.join(" ") : "");
  }

  tabbable() {
    const focused = [...this.dots].find(([, dot]) => dot === document.activeElement);
    return focused?.[0] ?? this.nodes.find((node) => node.here)?.id ?? this.nodes[0]?.id;
  }

  onKey(event) {
    const index = this.nodes.findIndex((node) => this.dots.get(node.id) === event.target);
    const count = this.nodes.length;
    const to = {
      ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1,
      Home: 0, End: count - 1,
    }[event.key];
    if (to !== undefined && index >= 0) {
      for (const dot of this.dots.values()) dot.setAttribute("tabindex", -1);
      const dot = this.dots.get(this.nodes[(to + count) % count].id);
      dot.setAttribute("tabindex", 0);
      dot.focus();
      event.preventDefault();
    } else if (event.key === "Enter" || event.key === " ") {
      this.chosen(this.nodes[index].id);
      event.preventDefault();
    }
  }
}

/** A curve between two places, bent towards the centre. */
const chord = (from, to, start = RADIUS - 13) => {
  const [x, y] = polar(from, start);
  const [toX, toY] = polar(to, RADIUS - 14);
  const bend = 0.3;
  return `M${n(x)} ${n(y)}Q${n((x + toX) / 2 * bend)} ${n((y + toY) / 2 * bend)} ${n(toX)} ${n(toY)}`;
};
