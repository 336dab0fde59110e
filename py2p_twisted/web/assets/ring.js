// The page: hears how the ring is, and shows it.  Text only ever becomes textContent.

import { Circle } from "./circle.js";

const $ = (id) => document.getElementById(id);
const HISTORY = 61;
const MOST_EVENTS = 60;

let ring = null;      // the last that was heard
let pointed = null;   // the node under the pointer or the focus
let pinned = null;    // the node that was clicked
let found = null;     // where a key lives
const rates = [];     // operations per second, lately

const circle = new Circle($("circle"), (id) => { pointed = id; showNode(); }, pin);

// -- words

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "compact" });
const count = (number, what) => `${whole.format(number)} ${what}${number === 1 ? "" : "s"}`;
const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`);
const perSecond = (rate) => (rate === null || rate === undefined ? "–" : short.format(rate));
const milliseconds = (us) => (us === undefined || us === null ? "–" : `${(us / 1000).toPrecision(2)} ms`);

function bytes(number) {
  if (number < 1024) return `${number} B`;
  const power = Math.min(Math.floor(Math.log2(number) / 10), 4);
  return `${(number / 1024 ** power).toPrecision(3)} ${["", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// -- what was heard, made ready to be shown

function digest(heard) {
  const keys = heard.nodes.reduce((sum, node) => sum + (node.keys ?? 0), 0);
  for (const node of heard.nodes) {
    node.here = node.id === heard.here;
    node.silent = !node.alive;
    node.mute = node.alive && node.problem !== "";  // too busy to tell, or too old
    node.leaving = node.phase === "leaving" || node.phase === "joining";
    node.onCircle = node.phase === "joined" || node.phase === "leaving" || node.mute;
    node.share = node.keys && keys ? node.keys / keys : 0;
    node.label = node.name.length > 9 ? `${node.name.slice(0, 7)}…` : node.name;
    node.state = node.silent ? "does not answer" : node.mute ? "tells nothing" : node.phase;
    node.fingers ??= [];
    node.successors ??= [];
    node.spoken = `Node ${node.label} ${node.address}, ${node.state}`
      + (node.problem ? "" : `, ${percent(node.share)} of the keys, ${count(node.groups, "group")}`)
      + (node.here ? ", this node" : "");
  }
  heard.nodes.sort((a, b) => a.place - b.place);
  const known = heard.nodes.filter((node) => node.reads !== null && node.reads !== undefined);
  heard.rate = known.length ? known.reduce((sum, node) => sum + node.reads + node.writes, 0) : null;
  heard.keys = keys;
  return heard;
}

function show(heard) {
  ring = digest(heard);
  if (ring.rate !== null) {
    rates.push(ring.rate);
    rates.splice(0, rates.length - HISTORY);
  }
  document.title = `${ring.ring || "no ring"} · Chord ring`;
  $("name").textContent = ring.ring || "(none)";
  $("about").textContent = [
    `subnet ${ring.subnet}`, `k = ${ring.k}`,
    ring.replicas ? `${ring.replicas} copies of each key` : "", ring.encryption === "SSL" ? "TLS" : "",
  ].filter(Boolean).join(" · ");
  showTiles();
  circle.draw(ring);
  circle.rates(perSecond(ring.rate), rates);
  showScale();
  showNode();
  circle.find(found);
  showTable();
  showEvents();
  $("updated").textContent = `as of ${new Date(1000 * ring.at).toLocaleTimeString()}`;
}

function showTiles() {
  const { below, without_quorum: lost, partitions } = ring.groups;
  const silent = ring.nodes.filter((node) => node.silent).length;
  tile("nodes", whole.format(ring.nodes.length - silent), silent ? `${silent} not answering` : "");
  tile("keys", whole.format(ring.keys), "");
  tile("rate", perSecond(ring.rate), "");
  tile("groups", whole.format(below), lost ? `${lost} without a quorum` : `of ${partitions}`);
  const state = lost ? "lost" : below || silent ? "below" : "good";
  $("tile-groups-box").dataset.state = lost ? "lost" : below ? "below" : "good";
  const words = !ring.ring ? "In no ring"
    : lost ? `${count(lost, "group")} cannot be used`
    : silent ? `${count(silent, "node")} ${silent === 1 ? "does" : "do"} not answer`
    : below ? "Groups are below strength" : "All groups at full strength";
  tell(ring.ring ? state : "", words);
}

function tile(name, text, small) {
  const box = $(`tile-${name}`);
  box.textContent = text;
  if (small) box.append(" ", element("small", small));
}

function tell(state, text) {
  $("state").dataset.state = state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

function showScale() {
  const top = Math.max(...ring.nodes.map((node) => node.share), 0);
  $("scale-low").textContent = "0";
  $("scale-high").textContent = top ? percent(top) : "0 (there are no keys)";
}

// -- one node

function pin(id) {
  pinned = pinned === id ? null : id;
  showNode();
}

function showNode() {
  if (!ring) return;
  const id = pointed ?? pinned;
  const chosen = ring.nodes.find((one) => one.id === id);
  if (!chosen && pinned === id) pinned = null;
  circle.point(chosen ? id : null);
  const node = chosen ?? ring.nodes.find((one) => one.here);
  for (const [one, dot] of circle.dots) dot.setAttribute("aria-pressed", one === pinned);
  for (const row of $("nodes").tBodies[0].rows) row.classList.toggle("active", row.dataset.id === id);
  $("hint").hidden = Boolean(chosen);
  $("node-title").textContent = node ? `Node ${node.label}${node.here ? " (this one)" : ""}` : "Node";
  $("node-title").title = node?.name ?? "";
  $("node").replaceChildren(...(node ? facts(node) : []));
}

function facts(node) {
  const names = (ids) => ids.map((id) => ring.nodes.find((one) => one.id === id)?.label ?? "?").join(", ") || "–";
  if (node.problem) {
    return [...pair("Address", node.address), element("dd", node.problem, "wide")];
  }
  const trouble = node.status === "Nominal" ? [] : [element("dd", node.status, "wide")];
  const room = node.quota ? ` of ${bytes(node.quota)}` : "";
  return [
    ...pair("Address", node.address),
    ...pair("State", node.state),
    ...pair("Share of the ring's keys", percent(node.share)),
    ...pair("Keys kept, with copies of others'", whole.format(node.copies)),
    ...pair("Bytes kept", `${bytes(node.bytes)}${room}`),
    ...pair("Groups", `${node.groups}${node.below ? `, ${node.below} below strength` : ""}`),
    ...pair("Reads, writes per second", `${perSecond(node.reads)}, ${perSecond(node.writes)}`),
    ...pair("Successors", names(node.successors)),
    ...pair("Fingers", names(node.fingers)),
    ...pair("Round trip from here", node.here ? "–" : milliseconds(node.round_trip)),
    ...pair("Connections", whole.format(node.connections)),
    ...pair("Up for", duration(node.uptime)),
    ...pair("Version", node.version),
    ...trouble,
  ];
}

const pair = (name, value) => [element("dt", name), element("dd", value)];

function showTable() {
  const body = $("nodes").tBodies[0];
  const rows = ring.nodes.map((node) => {
    const row = document.createElement("tr");
    row.dataset.id = node.id;
    const name = element("th", node.label);
    name.title = node.name;
    name.scope = "row";
    const told = node.problem ? Array(8).fill("–") : [
      whole.format(node.copies), percent(node.share), node.groups, node.below,
      perSecond(node.reads), perSecond(node.writes), node.here ? "this node" : milliseconds(node.round_trip),
      duration(node.uptime),
    ];
    row.append(
      name, element("td", node.address), element("td", node.state, node.silent ? "bad" : ""),
      ...told.map((text) => element("td", text, "number")),
    );
    row.classList.toggle("active", node.id === (pointed ?? pinned));
    return row;
  });
  body.replaceChildren(...rows);
}

// -- events

const shown = new Map();

function showEvents() {
  const list = $("events");
  const latest = ring.events.slice(-MOST_EVENTS);
  const present = new Set();
  for (const event of latest) {
    const id = `${event.at} ${event.kind} ${event.text}`;
    present.add(id);
    if (!shown.has(id)) {
      const item = document.createElement("li");
      item.dataset.kind = event.kind;
      item.append(element("span", event.text), element("time", ""));
      item.lastChild.dateTime = new Date(1000 * event.at).toISOString();
      shown.set(id, item);
      list.prepend(item);
    }
    shown.get(id).lastChild.textContent = duration(ring.at - event.at);
  }
  for (const [id, item] of shown) {
    if (!present.has(id)) {
      item.remove();
      shown.delete(id);
    }
  }
  $("log").ariaLive = "polite";  // what was there at first is not read out
}

// -- a key

$("find").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = $("key").value;
  const path = encodeURIComponent(key);
  try {
    const [places, value] = await Promise.all([
      fetch(`v1/places/${path}`), fetch(`v1/keys/${path}`, { method: "HEAD" }),
    ]);
    const told = await places.json();
    if (!places.ok) throw new Error(told.detail);
    found = told;
    showPlaces(key, value);
  } catch (error) {
    found = null;
    $("places").replaceChildren(element("p", `Not found out: ${error.message}`, "wrong"));
  }
  $("forget").hidden = false;
  circle.find(found);
});

$("find").addEventListener("reset", () => {
  found = null;
  circle.find(null);
  $("places").replaceChildren();
  $("forget").hidden = true;
  $("key").focus();
});

function showPlaces(key, value) {
  const size = Number(value.headers.get("content-length"));
  const there = value.ok ? `There is a value of ${bytes(size)}.`
    : value.status === 404 ? "There is no value; this is where it would be." : "It cannot be read now.";
  const list = document.createElement("ul");
  for (const node of found.nodes) {
    const known = ring?.nodes.find((one) => one.id === node.id);
    const silent = !node.alive || known?.silent;
    list.append(element("li", `${known?.label ?? node.name} at ${node.address}`, silent ? "silent" : ""));
  }
  const words = `Kept by ${count(found.nodes.length, "node")}, of which ${found.quorum} decide:`;
  $("places").replaceChildren(element("p", there), element("p", words), list);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (pinned !== null) pin(pinned);
    else if (found) $("find").reset();
  } else if (event.key === "/" && document.activeElement !== $("key")) {
    $("key").focus();
    event.preventDefault();
  }
});

// -- the stream

let stream = null;
let again = null;

function listen() {
  clearTimeout(again);
  stream?.close();
  stream = new EventSource("events");
  stream.addEventListener("ring", (event) => {
    document.body.classList.remove("stale");
    show(JSON.parse(event.data));
  });
  stream.addEventListener("error", () => {
    document.body.classList.add("stale");
    tell("lost", "This node does not answer. Trying again …");
    // The browser itself tries again after a lost connection, not after a refusal.
    if (stream.readyState === EventSource.CLOSED) again = setTimeout(listen, 5000);
  });
}

// Nobody watches a page that is hidden: the ring is not asked for it.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.close();
  else listen();
});

listen();
