// Which versions of a task this page has made itself, without anybody else's between them: a change that was begun on one of
// them is a change of the latest.

/** Of two of the largest changes. */
const TASKS_KEPT_MAX = 20_000;

export class OwnVersions {
  readonly #runs = new Map<string, { from: number; to: number }>();

  /** The version that a command is to expect which was decided on `seen`. */
  latest(task: string, seen: number): number {
    const run = this.#runs.get(task);
    return run && run.from <= seen && seen < run.to ? run.to : seen;
  }

  /** A command that expected one version has made another one. */
  made(task: string, expected: number, version: number): void {
    const run = this.#runs.get(task);
    if (this.#runs.size >= TASKS_KEPT_MAX) this.#runs.clear();
    this.#runs.set(task, { from: run?.to === expected ? run.from : expected, to: version });
  }
}
