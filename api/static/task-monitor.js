/**
 * Watches tasks from a web page, live, over the WebSocket /ws/tasks.
 *
 *   import { TaskMonitor } from "http://localhost:8084/static/task-monitor.js";
 *   const monitor = new TaskMonitor();
 *   monitor.connect();
 *   monitor.watchTask(id, (task) => console.log(task.status, task.progress));
 *
 * A broken connection is opened again, after a while that grows, and goes on after the last thing
 * that was told: nothing is missed or told twice. Where the service no longer has that (onReload),
 * every watched task is told anew as it stands.
 */

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const SILENCE_MS = 60_000; // the service says something every 20 s
const IDS_IN_ADDRESS = 150; // an address has room for so many; the others are subscribed to
const SERVICE_RESTART = 1012;
const TASK_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export class TaskMonitor {
  /**
   * @param {object} [options]
   * @param {string} [options.url] the service, such as "http://localhost:8084"; by default the one
   *   that this file comes from
   * @param {string|string[]} [options.kbId] what onUpdate is told of: these knowledge bases only
   * @param {string|string[]} [options.status] and only these statuses
   * @param {string|string[]} [options.taskType] and only these types
   * @param {string} [options.after] and from this position on ("beginning": all that there is)
   */
  constructor({ url, kbId, status, taskType, after } = {}) {
    const base = new URL(url ?? new URL("/", import.meta.url));
    // Else its last part would be taken for a file, and left out.
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    const heard = (update) => this.#heard(update);
    const events = {
      onReload: (reason) => this.#tell(this.#reloadCallbacks, reason),
      onError: (error) => this.#tell(this.#errorCallbacks, error),
      onState: () => this.#stateChanged(),
    };
    // Watching single tasks narrows a connection down to them, so updates have one of their own.
    const onError = (error) => this.#refused(error);
    this.#tasks = new Line(base, {}, undefined, { ...events, onError, onUpdate: heard });
    this.#feed = new Line(
      base,
      { kb_id: kbId, status, task_type: taskType },
      after,
      { ...events, onUpdate: (update) => this.#tell(this.#updateCallbacks, update) },
    );
  }

  #tasks;
  #feed;
  #started = false;
  #state = "closed";
  #watched = new Map();
  #updateCallbacks = new Set();
  #reloadCallbacks = new Set();
  #errorCallbacks = new Set();
  #stateCallbacks = new Set();

  /** "connecting", "open", "waiting" (to try again), "refused" or "closed". */
  get state() {
    return this.#state;
  }

  /** Begin. What is watched or listened to later joins in. Returns once all connections that are
   * needed by now are open. */
  async connect() {
    this.#started = true;
    await Promise.all(this.#openWhatIsNeeded());
  }

  /** End; nothing is called any more. `connect` begins again where this was. */
  close() {
    this.#started = false;
    this.#tasks.close();
    this.#feed.close();
  }

  /** Call back with the task as it stands, and at each change. Returns what ends that. */
  watchTask(id, callback) {
    if (!TASK_ID.test(id)) {
      // In an address it would have the service refuse all the others, too.
      const expected = "a lower-case UUID";
      const message = `task_id: expected ${expected}, got ${id}`;
      const details = { field: "task_id", expected, task_id: id };
      this.#tell(this.#errorCallbacks, { code: "INVALID_REQUEST", message, details });
      return () => {};
    }
    const callbacks = this.#watched.get(id) ?? new Set();
    callbacks.add(callback);
    this.#watched.set(id, callbacks);
    this.#tasks.subscribe(id);
    this.#openWhatIsNeeded();
    return () => this.unwatchTask(id, callback);
  }

  /** Call back no longer; without a callback, none that watches the task. */
  unwatchTask(id, callback) {
    const callbacks = this.#watched.get(id);
    if (callback) callbacks?.delete(callback);
    if (!callbacks || (callback && callbacks.size)) return;
    this.#watched.delete(id);
    this.#tasks.unsubscribe(id);
    if (!this.#watched.size) this.#tasks.forget();
  }

  /** Call back with each update of any task that the options let through. */
  onUpdate(callback) {
    const stop = this.#add(this.#updateCallbacks, callback);
    this.#openWhatIsNeeded();
    return () => {
      stop();
      if (!this.#updateCallbacks.size) this.#feed.forget();
    };
  }

  /** Call back when the service no longer has what came after the last update (it keeps recent
   * history, or lost its newest events): load what else you show anew. */
  onReload(callback) {
    return this.#add(this.#reloadCallbacks, callback);
  }

  /** Call back with what the service refuses: { code, message, details }. */
  onError(callback) {
    return this.#add(this.#errorCallbacks, callback);
  }

  /** Call back with each new state. */
  onState(callback) {
    return this.#add(this.#stateCallbacks, callback);
  }

  #openWhatIsNeeded() {
    if (!this.#started) return [];
    return [
      ...(this.#watched.size ? [this.#tasks.open()] : []),
      ...(this.#updateCallbacks.size ? [this.#feed.open()] : []),
    ];
  }

  #heard(update) {
    this.#tell(this.#watched.get(update.task_id) ?? [], update);
  }

  #refused(error) {
    // A connection that names no task would be told of all.
    this.#watched.delete(error.details?.task_id);
    this.#tell(this.#errorCallbacks, error);
  }

  #stateChanged() {
    const states = [this.#tasks.state, this.#feed.state].filter((state) => state !== "closed");
    const worst = ["refused", "waiting", "connecting", "open"].find((s) => states.includes(s));
    if ((worst ?? "closed") === this.#state) return;
    this.#state = worst ?? "closed";
    this.#tell(this.#stateCallbacks, this.#state);
  }

  #add(callbacks, callback) {
    callbacks.add(callback);
    return () => callbacks.delete(callback);
  }

  #tell(callbacks, what) {
    for (const callback of [...callbacks]) {
      try {
        callback(what);
      } catch (error) {
        console.error(error); // one that fails keeps nothing from the others
      }
    }
  }
}

/** One connection that comes back. */
class Line {
  constructor(base, filters, after, events) {
    this.base = base;
    this.filters = filters;
    this.after = after;
    this.events = events;
  }

  state = "closed";
  socket = null;
  opening = null;
  failures = 0;
  positions = new Map(); // by partition: the last that was told
  ids = new Map(); // subscribed tasks: what was told last, "" until their first message
  timer = null;

  open() {
    if (this.state === "open") return Promise.resolve();
    this.opening ??= promise();
    if (this.state === "closed" || this.state === "refused") this.#connect();
    return this.opening.done;
  }

  close() {
    clearTimeout(this.timer);
    globalThis.removeEventListener?.("online", this.hurry);
    const { socket } = this;
    this.socket = null;
    socket?.close(1000);
    this.opening?.resolve(); // nobody waits for what was given up
    this.opening = null;
    this.#become("closed");
  }

  /** Close, and begin anew some time. */
  forget() {
    this.close();
    this.positions.clear();
  }

  subscribe(id) {
    // Of one that was there already too: tell how it stands, now or at the next connection.
    this.ids.set(id, "");
    this.#say("subscribe", id);
  }

  unsubscribe(id) {
    this.ids.delete(id);
    this.#say("unsubscribe", id);
  }

  hurry = () => {
    if (this.state === "waiting") this.#connect();
  };

  #connect() {
    clearTimeout(this.timer);
    const asked = this.#address();
    const address = new URL(asked);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.socket = socket;
    this.#become("connecting");
    this.#awaitMore();
    let opened = false;
    const current = () => this.socket === socket;
    socket.onopen = () => {
      if (!current()) return;
      opened = true;
      this.#opened();
    };
    socket.onmessage = ({ data }) => current() && this.#heard(JSON.parse(data));
    socket.onclose = ({ code }) => {
      if (!current()) return;
      this.socket = null;
      if (opened) this.#again(code === SERVICE_RESTART);
      else this.#askWhy(asked);
    };
  }

  #address() {
    const address = new URL("ws/tasks", this.base);
    const add = (name, value) => {
      if (value?.length) address.searchParams.set(name, escaped(value));
    };
    for (const [name, value] of Object.entries(this.filters)) add(name, value);
    add("task_id", [...this.ids.keys()].slice(0, IDS_IN_ADDRESS));
    const after = this.positions.size ? [...this.positions.values()].join(",") : this.after;
    if (after) address.searchParams.set("after", after);
    address.searchParams.set("positions", "true");
    return address;
  }

  #opened() {
    this.#become("open");
    this.#awaitMore();
    this.opening?.resolve();
    this.opening = null;
    [...this.ids].forEach(([id, last], index) => {
      if (!last || index >= IDS_IN_ADDRESS) this.#say("subscribe", id);
    });
  }

  #heard(message) {
    if (message.type === "error") {
      this.#subscriptionRefused(message);
      return;
    }
    this.failures = 0;
    this.#awaitMore();
    for (const position of (message.position ?? "").split(",")) {
      if (position) this.positions.set(position.split(":")[0], position);
    }
    if (message.type !== "task_update") return;
    if (this.ids.has(message.task_id)) {
      // Subscribed to again, a task is told as it stands, whether that is news or not.
      const { task_id: id, at, status, progress, message: text } = message;
      const told = JSON.stringify([at, status, progress, text]);
      if (this.ids.get(id) === told) return;
      this.ids.set(id, told);
    }
    this.events.onUpdate(message);
  }

  /** What is refused once would be at each connection: it is watched no more. But while the ledger
   * is out of reach, all that has no answer yet is asked for again a little later. */
  #subscriptionRefused(error) {
    if (error.code === "SERVICE_UNAVAILABLE") {
      this.#hangUp();
      this.#again(false);
      return;
    }
    if (this.ids.delete(error.details?.task_id) && !this.ids.size) this.forget();
    this.events.onError(error);
  }

  /** A connection that says nothing for too long is none any more. */
  #awaitMore() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.#hangUp();
      this.#again(true);
    }, SILENCE_MS);
  }

  #hangUp() {
    const { socket } = this;
    this.socket = null;
    socket?.close();
  }

  /** A browser does not say why a handshake was refused: the same address, asked as a page, does. */
  async #askWhy(address) {
    let refusal = null;
    try {
      const answer = await fetch(address, { cache: "no-store" });
      refusal = answer.status === 426 ? null : await answer.json();
    } catch {
      // Nobody is there, or nobody who tells.
    }
    if (this.socket || this.state !== "connecting") return;
    const { code, message, details } = refusal ?? {};
    if (code === "POSITION_GONE" || (code === "INVALID_REQUEST" && details?.field === "after")) {
      this.positions.clear();
      this.after = undefined;
      for (const id of this.ids.keys()) this.ids.set(id, "");
      this.events.onReload({ code, message, details });
      if (this.state === "connecting") this.#connect();
    } else if (code === "INVALID_REQUEST" || code === "FORBIDDEN") {
      clearTimeout(this.timer);
      this.#become("refused");
      this.opening?.reject(new Error(message));
      this.opening = null;
      this.events.onError({ code, message, details });
    } else {
      this.#again(false);
    }
  }

  /** Try again after a while: the longer the more often that failed, and never all at once. */
  #again(soon) {
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.failures++);
    const delay = (soon ? 0 : longest / 2) + (Math.random() * longest) / 2;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#connect(), delay);
    globalThis.addEventListener?.("online", this.hurry);
    this.#become("waiting");
  }

  #say(type, id) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify({ type, task_id: id }));
    return true;
  }

  #become(state) {
    this.state = state;
    this.events.onState();
  }
}

/** Values in one text; a comma or a backslash within one stands behind a backslash. */
function escaped(values) {
  return [values].flat().map((value) => value.replace(/[\\,]/g, "\\$&")).join(",");
}

function promise() {
  const made = {};
  made.done = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.done.catch(() => {}); // whoever waits hears of it all the same
  return made;
}

globalThis.TaskMonitor = TaskMonitor;
