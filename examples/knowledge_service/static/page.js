// The page: uploads files, and shows what becomes of them as ledgerq tells it over its WebSocket.

const ledgerq = document.querySelector("script[data-ledgerq]").dataset.ledgerq;
const by = (id) => document.getElementById(id);
const rows = new Map();
const watched = new Map(); // what ends the watch of each task
const FINISHED = ["completed", "failed", "canceled"];

let monitor = null;

function show(job) {
  let row = rows.get(job.task_id);
  if (!row) {
    row = by("jobs").insertRow(0);
    for (let i = 0; i < 4; i++) row.insertCell();
    row.cells[0].textContent = job.name || (job.kind === "knowledge_indexing" ? "index" : job.kind);
    row.cells[2].innerHTML = "<progress max=100></progress><span></span>";
    rows.set(job.task_id, row);
  }
  row.cells[1].textContent = row.cells[1].className = job.status;
  row.cells[2].firstChild.value = job.status === "completed" ? 100 : job.progress ?? 0;
  row.cells[2].lastChild.textContent = job.message ?? "";
  row.cells[3].textContent = job.error || job.error_message || told(job.result);
}

const told = (result) =>
  result?.chunks === undefined ? "" : `${result.chunks} ${result.chunks === 1 ? "chunk" : "chunks"}`;

function follow(job) {
  show({ status: "accepted", ...job });
  const { task_id } = job;
  watched.set(task_id, monitor?.watchTask(task_id, (update) => {
    show({ ...job, ...update });
    if (FINISHED.includes(update.status)) unwatch(task_id); // one connection watches 1,000 at most
  }));
}

function unwatch(task_id) {
  watched.get(task_id)?.();
  watched.delete(task_id);
}

function showError(error) {
  by("error").textContent = error.message;
}

async function ask(path, options) {
  by("error").textContent = "";
  const answer = await fetch(path, options);
  const body = await answer.json().catch(() => ({})); // of a proxy before the service, perhaps
  if (!answer.ok) throw new Error(body.error ?? `${answer.status} ${answer.statusText}`);
  return body;
}

const orShow = (work) => async (event) => {
  event.preventDefault();
  try {
    await work();
  } catch (error) {
    showError(error);
  }
};

const documents = () => `/api/v1/knowledge-bases/${encodeURIComponent(by("kb").value)}/documents`;

by("upload").addEventListener("submit", orShow(async () => {
  const refused = [];
  for (const file of by("files").files) {
    const path = `${documents()}?filename=${encodeURIComponent(file.name)}`;
    try {
      const { task_id } = await ask(path, { method: "POST", body: file });
      follow({ task_id, name: file.name });
    } catch (error) {
      refused.push(`${file.name}: ${error.message}`); // and the others go on
    }
  }
  if (refused.length) throw new Error(refused.join("; "));
}));

by("enhance").addEventListener("click", orShow(async () => {
  const body = JSON.stringify({ kb_ids: [by("kb").value] });
  const { task_ids } = await ask("/api/v1/enhance", { method: "POST", body });
  follow({ task_id: task_ids[0], kind: "knowledge_indexing" });
}));

by("search").addEventListener("submit", orShow(async () => {
  const query = new URLSearchParams({ kb_id: by("kb").value, q: by("query").value });
  const { hits } = await ask(`/api/v1/search?${query}`);
  by("hits").replaceChildren(...hits.map(({ path, snippet }) => {
    const item = document.createElement("li");
    const words = document.createElement("small");
    words.textContent = ` ${snippet}`;
    item.append(path, words);
    return item;
  }));
}));

by("kb").addEventListener("change", () => load().catch(showError));
async function load() {
  const asked = documents();
  const { counts, jobs } = await ask(asked);
  if (asked !== documents()) return; // another one was chosen meanwhile
  for (const task_id of [...watched.keys()]) unwatch(task_id);
  by("jobs").replaceChildren();
  rows.clear();
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  by("counts").textContent = total > jobs.length ? `The newest ${jobs.length} of ${total}` : "";
  for (const job of jobs.reverse()) {
    if (job.finished_at) show(job);
    else follow(job);
  }
}

async function connected() {
  try {
    const { TaskMonitor } = await import(`${ledgerq}/static/task-monitor.js`);
    const monitor = new TaskMonitor();
    monitor.onState((state) => {
      // There is no connection, and needs to be none, while nothing is watched.
      by("connection").textContent = { open: "live", closed: "" }[state] ?? state;
      by("connection").className = state === "open" ? "on" : "off";
    });
    monitor.onError(showError);
    monitor.connect();
    return monitor;
  } catch {
    // What this service knows by itself is shown all the same.
    by("connection").textContent = "not live: ledgerq was out of reach when the page was loaded";
    by("connection").className = "off";
    return null;
  }
}
monitor = await connected();
await load().catch(showError);
