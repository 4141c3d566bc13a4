// The page: uploads files, and shows what becomes of them as ledgerq tells it over its WebSocket.

const ledgerq = document.querySelector("script[data-ledgerq]").dataset.ledgerq;
const by = (id) => document.getElementById(id);
const rows = new Map();
const watched = new Set(); // what ends each watch

const { TaskMonitor } = await import(`${ledgerq}/static/task-monitor.js`);
const monitor = new TaskMonitor();
monitor.onState((state) => {
  // There is no connection, and needs to be none, while nothing is watched.
  by("connection").textContent = { open: "live", closed: "" }[state] ?? state;
  by("connection").className = state === "open" ? "on" : "off";
});
monitor.onError((error) => (by("error").textContent = error.message));
monitor.connect();

function show(job) {
  let row = rows.get(job.task_id);
  if (!row) {
    row = by("jobs").insertRow(0);
    for (let i = 0; i < 4; i++) row.insertCell();
    row.cells[0].textContent = job.name || job.kind;
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

function follow(task_id, name) {
  show({ task_id, name, status: "accepted" });
  watched.add(monitor.watchTask(task_id, (update) => show({ ...update, name })));
}

async function ask(path, options) {
  by("error").textContent = "";
  const answer = await fetch(path, options);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

const orShow = (work) => async (event) => {
  event.preventDefault();
  try {
    await work();
  } catch (error) {
    by("error").textContent = error.message;
  }
};

const documents = () => `/api/v1/knowledge-bases/${encodeURIComponent(by("kb").value)}/documents`;

by("upload").addEventListener("submit", orShow(async () => {
  const refused = [];
  for (const file of by("files").files) {
    const path = `${documents()}?filename=${encodeURIComponent(file.name)}`;
    try {
      follow((await ask(path, { method: "POST", body: file })).task_id, file.name);
    } catch (error) {
      refused.push(`${file.name}: ${error.message}`); // and the others go on
    }
  }
  if (refused.length) throw new Error(refused.join("; "));
}));

by("enhance").addEventListener("click", orShow(async () => {
  const body = JSON.stringify({ kb_ids: [by("kb").value] });
  const { task_ids } = await ask("/api/v1/enhance", { method: "POST", body });
  follow(task_ids[0], `index of ${by("kb").value}`);
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

by("kb").addEventListener("change", load);
async function load() {
  const asked = documents();
  const { jobs } = await ask(asked);
  if (asked !== documents()) return; // another one was chosen meanwhile
  for (const stop of watched) stop();
  watched.clear();
  by("jobs").replaceChildren();
  rows.clear();
  for (const job of jobs.reverse()) {
    show(job);
    if (!job.finished_at) follow(job.task_id, job.name || job.kind);
  }
}
load();
