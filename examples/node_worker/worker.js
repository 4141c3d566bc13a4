"use strict";
// A worker for ledgerq that knows nothing of it but its proto: `node worker.js [HOST:PORT]`.

const os = require("node:os");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { PermanentError, handlers } = require("./handlers");

const PROTO = path.join(__dirname, "../../api/grpc/task_service.proto");
const SLOTS = 8; // tasks at once
const WAIT_MS = 20_000; // how long a call waits for tasks
const CALL_MS = 10_000; // how long any other call may take, beside what it waits
const REPORT_ATTEMPTS = 8;
const PAUSE_MS = 500; // before a call that failed is made again; doubles
const DRAIN_MS = 20_000;

const options = { keepCase: false, longs: Number, enums: String, defaults: true, oneofs: true };
const { ledgerq } = grpc.loadPackageDefinition(loader.loadSync(PROTO, options));
const LATER = new Set([grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED, grpc.status.ABORTED]);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const log = (what, more = {}) => console.log(JSON.stringify({ what, ...more }));

class Worker {
  constructor(target) {
    this.id = `node-${os.hostname()}-${process.pid}`;
    this.client = new ledgerq.v1.TaskService(target, grpc.credentials.createInsecure());
    this.running = new Map(); // by task id and attempt
    this.stopping = false;
    this.heartbeatMs = 1_000;
    this.taking = null; // the call that waits for tasks
  }

  /** Work until `stop`, then come to an end in order. */
  async run() {
    log("started", { worker: this.id, types: Object.keys(handlers) });
    const beating = this.beat();
    while (!this.stopping) {
      if (this.running.size >= SLOTS) {
        await Promise.race([...this.running.values()].map((attempt) => attempt.ended));
        continue;
      }
      for (const task of await this.take(SLOTS - this.running.size)) this.begin(task);
    }
    const all = Promise.all([...this.running.values()].map((attempt) => attempt.ended));
    const patience = new Promise((resolve) => setTimeout(resolve, DRAIN_MS).unref());
    await Promise.race([all, patience]);
    for (const { task } of this.running.values()) {
      await this.report(task, { released: { reason: "the worker was stopped" } });
    }
    this.ended = true;
    await beating;
    await this.call("heartbeat", { workerId: this.id, leases: [], leaving: true }).catch(() => {});
    this.client.close();
    log("stopped", { worker: this.id });
  }

  /** Take nothing more. */
  stop() {
    this.stopping = true;
    if (this.taking !== null) this.taking.cancel(); // what was claimed for it is given back
  }

  /** At most `count` tasks; none after a while, or when the server is away. */
  async take(count) {
    const asked = {
      workerId: this.id,
      taskTypes: Object.keys(handlers),
      maxTasks: count,
      waitMs: WAIT_MS,
      host: os.hostname(),
      pid: process.pid,
      concurrency: SLOTS,
    };
    try {
      const answer = await this.call("getPendingTasks", asked, WAIT_MS, (call) => (this.taking = call));
      this.heartbeatMs = answer.heartbeatMs;
      return answer.tasks;
    } catch (error) {
      if (!this.stopping) {
        log("cannot_take", { reason: error.details });
        await pause(PAUSE_MS);
      }
      return [];
    } finally {
      this.taking = null;
    }
  }

  begin(task) {
    const key = `${task.id}:${task.attempt}`;
    const attempt = { task, gone: false };
    attempt.ended = this.workOn(attempt).finally(() => this.running.delete(key));
    this.running.set(key, attempt);
  }

  async workOn(attempt) {
    const { task } = attempt;
    const context = {
      taskId: task.id,
      attempt: task.attempt,
      kbId: task.kbId,
      isGone: () => attempt.gone,
      progress: (percent, message) => this.report(task, { progress: { percent, message } }),
    };
    let outcome;
    try {
      const result = await handlers[task.taskType](JSON.parse(task.payload), context);
      outcome = { completed: { result: Buffer.from(JSON.stringify(result ?? null)) } };
    } catch (error) {
      const kind = error instanceof PermanentError ? "ERROR_KIND_PERMANENT" : "ERROR_KIND_RETRYABLE";
      outcome = { failed: { errorMessage: String(error.message), kind } };
    }
    if (!attempt.gone) await this.report(task, outcome);
  }

  /** Tell the server, again if it does not answer: it does nothing twice. */
  async report(task, report) {
    const update = { taskId: task.id, attempt: task.attempt, ...report };
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.call("updateStatus", { workerId: this.id, update });
      } catch (error) {
        if (error.code === grpc.status.INVALID_ARGUMENT && report.completed) {
          // Too large, say: no other attempt would do better.
          const kind = "ERROR_KIND_PERMANENT";
          return await this.report(task, { failed: { errorMessage: error.details, kind } });
        }
        if (!LATER.has(error.code) || attempt >= REPORT_ATTEMPTS) {
          // Not ours any more, or the lease runs out: others take it up.
          return log("report_refused", { task: task.id, reason: error.details });
        }
        await pause(PAUSE_MS * 2 ** attempt);
      }
    }
  }

  /** Keep the leases, and learn which tasks are not ours any more. */
  async beat() {
    while (!this.ended) {
      const leases = [...this.running.values()].map(({ task }) => ({ taskId: task.id, attempt: task.attempt }));
      try {
        const request = { workerId: this.id, leases, leaving: this.stopping };
        for (const { taskId, attempt, reason } of (await this.call("heartbeat", request)).ended) {
          const gone = this.running.get(`${taskId}:${attempt}`);
          if (gone !== undefined) gone.gone = true;
          log("task_gone", { task: taskId, reason });
        }
      } catch (error) {
        log("no_heartbeat", { reason: error.details });
      }
      await pause(this.heartbeatMs);
    }
  }

  call(method, request, waitMs = 0, begun = () => {}) {
    const deadline = Date.now() + waitMs + CALL_MS;
    return new Promise((resolve, reject) => {
      begun(
        this.client[method](request, { deadline }, (error, answer) =>
          error ? reject(error) : resolve(answer),
        ),
      );
    });
  }
}

const worker = new Worker(process.argv[2] ?? "localhost:9084");
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => worker.stop());
worker.run().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
