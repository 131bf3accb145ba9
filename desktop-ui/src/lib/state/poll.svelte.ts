/** Data that is asked for again every few seconds while somebody looks at it. */
import { toProblem } from '$lib/api/problem';
import type { Problem } from '$lib/api/types';

export class Poll<T> {
  data = $state.raw<T | null>(null);
  /** Why the last round failed; what was known before stays. */
  problem = $state.raw<Problem | null>(null);
  #load: () => Promise<T>;
  #everyMs: number;
  #round = 0;
  #asking = false;

  constructor(load: () => Promise<T>, everyMs: number) {
    this.#load = load;
    this.#everyMs = everyMs;
  }

  /** Asks at once and then regularly; returns the function that stops it. To be called in an effect. */
  start(): () => void {
    void this.refresh();
    let timer = setInterval(() => {
      if (document.visibilityState === 'visible' && !this.#asking) void this.refresh();
    }, this.#everyMs);
    return () => {
      clearInterval(timer);
      this.#round += 1;
      this.#asking = false;
    };
  }

  /** A reply that was overtaken by a later question is dropped. */
  async refresh(): Promise<void> {
    let round = ++this.#round;
    this.#asking = true;
    try {
      let data = await this.#load();
      if (round !== this.#round) return;
      this.data = data;
      this.problem = null;
    } catch (error) {
      if (round === this.#round) this.problem = toProblem(error);
    } finally {
      if (round === this.#round) this.#asking = false;
    }
  }
}
