// Reads the JSON routes every second and shows them. What it shows is other people's text (names of jobs, of
// TaskManagers): it goes into the page as text nodes, never as HTML.
"use strict";

const EVERY = 1000;
const ENDED = new Set(["FINISHED", "CANCELED", "FAILED"]);
const COLOUR = {
  RUNNING: "busy", FINISHED: "good", FAILED: "bad", FAILING: "bad",
  CREATED: "wait", RESTARTING: "wait", CANCELLING: "wait", CANCELED: "soft", SUSPENDED: "wait", RECONCILING: "wait",
};
/** Of jobs that have ended: their numbers do not change any more. */
const ended = new Map();
/** Whose lists of logs are shown: route of the list → its links, as they were last told. */
const opened = new Map();

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
  return element;
}

function cell(label, kind, ...children) {
  return make("td", kind ? { "data-label": label, class: kind } : { "data-label": label }, make("div", {}, ...children));
}

function link(text, href) {
  return make("a", { href }, text);
}

function fill(table, rows) {
  document.querySelector(`#${table} tbody`).replaceChildren(...rows);
  document.getElementById(table).hidden = rows.length === 0;
  document.getElementById(`no-${table}`).hidden = rows.length !== 0;
}

async function get(route) {
  const answer = await fetch(route, { cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw new Error((body.errors || []).join(" ") || answer.statusText);
  return body;
}

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

function lasted(ms) {
  if (ms < 0) return "–";
  if (ms < 1000) return `${ms} ms`;
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${(ms / 1000).toFixed(1)} s`;
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  return parts.filter(([n]) => n > 0).slice(0, 2).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${n < 10 && i > 0 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

/** What the sources read: vertices that nothing but their coordinators feeds. */
function sourceRecords(details) {
  const role = new Map(details.vertices.map((v) => [v.id, v.role]));
  const fed = (id) => {
    const node = details.plan.nodes.find((n) => n.id === id);
    return ((node && node.inputs) || []).some((input) => role.get(input.id) !== "coordinator");
  };
  return details.vertices
    .filter((v) => v.role === "task" && !fed(v.id))
    .reduce((sum, v) => sum + v.metrics["read-records"], 0);
}

/** Records that it read, and why it failed. */
async function moreOf(job) {
  if (ended.has(job.jid)) return ended.get(job.jid);
  const at = `jobs/${encodeURIComponent(job.jid)}`;
  try {
    const more = { records: sourceRecords(await get(at)), failure: null };
    if (job.state === "FAILED" || job.state === "RESTARTING") {
      const [last] = (await get(`${at}/exceptions?maxExceptions=1`)).exceptionHistory.entries;
      more.failure = last ? last.stacktrace.split("\n")[0] : null;
    }
    if (ENDED.has(job.state)) ended.set(job.jid, more);
    return more;
  } catch {
    // It was forgotten between two requests.
    return { records: null, failure: null };
  }
}

/** Where the files of a list of logs are read. */
function logLinks(route, list) {
  return list.logs.map((file) => {
    const worker = file.taskmanager ? `taskmanagers/${encodeURIComponent(file.taskmanager)}` : route.replace(/\/logs$/, "");
    const name = file.name.split("/").map(encodeURIComponent).join("/");
    return { text: `${file.taskmanager ? `${file.taskmanager} ` : ""}${file.name} (${bytes(file.size)})`, href: `${worker}/logs/${name}` };
  });
}

async function readOpened() {
  await Promise.all([...opened.keys()].map(async (route) => {
    const links = await get(route).then((list) => logLinks(route, list), (e) => [{ text: e.message, href: route }]);
    // It may have been closed meanwhile.
    if (opened.has(route)) opened.set(route, links);
  }));
}

/** A button that shows and hides a list of logs. */
function logs(route) {
  const button = make("button", { type: "button", "aria-expanded": opened.has(route) }, "logs");
  button.addEventListener("click", async () => {
    if (!opened.delete(route)) opened.set(route, []);
    await draw();
  });
  return button;
}

function logList(route) {
  if (!opened.has(route)) return [];
  const links = opened.get(route);
  return [make("ul", {}, ...(links.length ? links.map((l) => make("li", {}, link(l.text, l.href))) : ["none"]))];
}

function jobRow(job, { records, failure }, waiting) {
  const at = `jobs/${encodeURIComponent(job.jid)}`;
  const over = ENDED.has(job.state);
  const tasks = over ? `${job.tasks.finished} of ${job.tasks.total} finished` : `${job.tasks.running} of ${job.tasks.total} running`;
  const state = [make("span", { class: `state ${COLOUR[job.state] || ""}` }, job.state)];
  if (waiting) state.push(make("p", { class: "soft" }, waiting));
  if (failure) state.push(make("p", { class: "soft" }, failure));
  const more = [make("p", { class: "links" }, link("details", at), link("exceptions", `${at}/exceptions`), link("plan", `${at}/plan`), logs(`api/${at}/logs`))];
  if (!over) more.push(make("p", { class: "soft" }, "to cancel it: ", make("code", {}, `thalweg cancel ${job.jid}`)));
  more.push(...logList(`api/${at}/logs`));
  return make("tr", {},
    cell("Job", "", make("span", { class: "name" }, job.name), make("p", { class: "soft" }, make("code", {}, job.jid))),
    cell("State", "", ...state),
    cell("Started", "", clock.format(new Date(job["start-time"]))),
    cell("Duration", "figure", lasted(job.duration)),
    cell("Tasks", "", tasks),
    cell("Records read", "figure", records === null ? "–" : whole.format(records)),
    cell("More", "", ...more));
}

function workerRow(worker, now) {
  const at = `taskmanagers/${encodeURIComponent(worker.id)}`;
  return make("tr", {},
    cell("TaskManager", "", make("span", { class: "name" }, worker.id), make("p", { class: "soft" }, `${worker.path} · pid ${worker.pid} · ${worker.platform}`)),
    cell("Slots", "figure", `${worker.freeSlots} of ${worker.slotsNumber} free`),
    cell("Memory", "figure", bytes(worker.memoryConfiguration.totalProcessMemory)),
    cell("Last heard", "figure", `${lasted(Math.max(0, now - worker.timeSinceLastHeartbeat))} ago`),
    cell("Logs", "", make("p", { class: "links" }, link("details", at), logs(`${at}/logs`)), ...logList(`${at}/logs`)));
}

function number(value, label) {
  return make("div", { class: "number" }, make("b", {}, value), make("span", {}, label));
}

async function show() {
  const [overview, jobs, workers, own] = await Promise.all([get("overview"), get("jobs/overview"), get("taskmanagers"), get("api/overview")]);
  const newestFirst = jobs.jobs.slice().sort((a, b) => ENDED.has(a.state) - ENDED.has(b.state) || b["start-time"] - a["start-time"]);
  const more = await Promise.all(newestFirst.map(moreOf));
  await readOpened();
  const waiting = new Map(own.jobs.map((j) => [j.id, j.waiting]));
  document.getElementById("cluster").textContent = `cluster ${own.cluster} · version ${overview["flink-version"]} · epoch ${own.epoch}`;
  document.getElementById("numbers").replaceChildren(
    number(whole.format(overview.taskmanagers), "TaskManagers"),
    number(`${overview["slots-available"]} of ${overview["slots-total"]}`, "slots free"),
    number(whole.format(overview["jobs-running"]), "jobs running"),
    number(whole.format(overview["jobs-finished"]), "finished"),
    number(whole.format(overview["jobs-cancelled"]), "cancelled"),
    number(whole.format(overview["jobs-failed"]), "failed"));
  fill("jobs", newestFirst.map((job, i) => jobRow(job, more[i], waiting.get(job.jid))));
  fill("taskmanagers", workers.taskmanagers.map((w) => workerRow(w, Date.now())));
}

async function draw() {
  const connection = document.getElementById("connection");
  try {
    await show();
    connection.textContent = "";
  } catch (e) {
    connection.textContent = `no answer: ${e.message}`;
  }
}

async function round() {
  // A page that nobody looks at asks nothing, and a selection is not taken away from under the hand that made it.
  const selecting = !document.getSelection().isCollapsed;
  if (!document.hidden && !selecting) await draw();
  setTimeout(round, EVERY);
}

round();
