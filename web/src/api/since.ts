// Between what is shown and what is told of nothing may lie: answers say which revision they show, events come after one.

export class Since {
  /** Called where something lies between the two: what is shown is to be asked for again. */
  missed: () => void = () => {};
  /** The lowest of what is shown, as long as nothing is told. */
  #shown: number | null = null;
  /** All up to it is shown or told, and all that happens after it is told. */
  #told: number | null = null;
  readonly #waiting = new Set<() => void>();

  /** An answer is shown. */
  saw(revision: number): void {
    if (this.#told === null) {
      this.#shown = Math.min(this.#shown ?? revision, revision);
      for (const go of this.#waiting) go();
    } else if (revision < this.#told) this.missed();
  }

  /** What the first answer shows; null: there is none within this time. */
  async first(ms: number): Promise<number | null> {
    if (this.#shown === null) {
      await new Promise<void>((resolve) => {
        const go = () => {
          clearTimeout(timer);
          this.#waiting.delete(go);
          resolve();
        };
        const timer = setTimeout(go, ms);
        this.#waiting.add(go);
      });
    }
    return this.#shown;
  }

  /** From now on all that happened after this is told. */
  began(revision: number): void {
    this.#told = revision;
    if (this.#shown !== null && this.#shown < revision) this.missed();
  }

  /**
   * All up to this is told. An answer that shows less was asked for before, or comes from where less is known: another copy of the
   * server, or a replica.
   */
  went(revision: number): void {
    if (this.#told !== null) this.#told = Math.max(this.#told, revision);
  }

  /** Nothing is shown, and nothing told. */
  forget(): void {
    this.#shown = null;
    this.#told = null;
  }
}

export const since = new Since();
