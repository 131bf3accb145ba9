/** What changes in the pool: one stream of events for the whole page, and data that is read anew when it says so. */
import { createContext } from 'svelte';

import { toProblem } from '$lib/api/problem';
import type { PoolEvent, Problem } from '$lib/api/types';
import type { Platform } from '$lib/platform';
import { isFinal } from '$lib/platform/follow';

const READ_ANEW_AFTER_MS = 300;
const TRY_AGAIN_AFTER_MS = 5_000;

type Hearer = (event: PoolEvent) => void;

export class PoolFeed {
  /** Whether what is shown is current: the stream of events is up. */
  connected = $state(true);
  #hearers: Hearer[] = [];
  #platform: Platform;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** Follows the pool until the returned function is called. To be called in an effect. */
  follow(onProblem: (problem: Problem) => void): () => void {
    let stop = this.#platform.followPool({
      onEvent: (event) => this.#tell(event),
      onConnection: (connected) => {
        let back = connected && !this.connected;
        this.connected = connected;
        // What failed meanwhile is asked for again, even when nothing changed.
        if (back) this.#tell({ event: 'reset' });
      },
      onProblem,
    });
    return () => {
      stop();
      this.connected = true;
    };
  }

  /** Calls back with every change; returns the function that stops it. */
  hear(hearer: Hearer): () => void {
    this.#hearers = [...this.#hearers, hearer];
    return () => {
      this.#hearers = this.#hearers.filter((one) => one !== hearer);
    };
  }

  #tell(event: PoolEvent): void {
    for (let hearer of this.#hearers) hearer(event);
  }
}

/** Data that is read anew when the pool says that it may have changed, while somebody looks at it. */
export class Live<T> {
  data = $state.raw<T | null>(null);
  /** Why the last reading failed; what was known before stays. */
  problem = $state.raw<Problem | null>(null);
  #feed: PoolFeed;
  #read: () => Promise<T>;
  #concerns: (event: PoolEvent) => boolean;
  #onData: (data: T) => void;
  #round = 0;
  #reading = false;
  #stale = false;
  #pause: ReturnType<typeof setTimeout> | null = null;

  /** `concerns` says whether a change can change the data; a `reset` always can. `onData` may stop the reading. */
  constructor(
    feed: PoolFeed,
    read: () => Promise<T>,
    concerns: (event: PoolEvent) => boolean = () => true,
    onData: (data: T) => void = () => undefined,
  ) {
    this.#feed = feed;
    this.#read = read;
    this.#concerns = concerns;
    this.#onData = onData;
  }

  /** Reads at once and then after changes; returns the function that stops it. To be called in an effect. */
  start(): () => void {
    let stop = this.#feed.hear((event) => {
      if (event.event === 'reset' || this.#concerns(event)) this.#changed();
    });
    let looked = () => {
      if (this.#stale) this.#changed();
    };
    document.addEventListener('visibilitychange', looked);
    void this.refresh();
    return () => {
      stop();
      document.removeEventListener('visibilitychange', looked);
      this.#rest(null);
      this.#round += 1;
      this.#reading = false;
      this.#stale = false;
    };
  }

  /** Reads now. A reply that was overtaken by a later question is dropped. */
  async refresh(): Promise<void> {
    let round = ++this.#round;
    this.#reading = true;
    this.#stale = false;
    this.#rest(null);
    let again: number | null = null;
    try {
      let data = await this.#read();
      if (round !== this.#round) return;
      this.data = data;
      this.problem = null;
      this.#onData(data);
      if (this.#stale) again = READ_ANEW_AFTER_MS;
    } catch (error) {
      if (round !== this.#round) return;
      this.problem = toProblem(error);
      if (!isFinal(this.problem.status)) again = TRY_AGAIN_AFTER_MS;
    }
    this.#reading = false;
    this.#rest(again);
  }

  /** Many changes at once are one reading, and nothing is read for a page nobody sees. */
  #changed(): void {
    this.#stale = true;
    if (this.#reading || document.visibilityState !== 'visible') return;
    if (this.#pause === null) this.#rest(READ_ANEW_AFTER_MS);
  }

  #rest(ms: number | null): void {
    if (this.#pause !== null) clearTimeout(this.#pause);
    this.#pause = ms === null ? null : setTimeout(() => void this.refresh(), ms);
  }
}

export const [getPool, setPool] = createContext<PoolFeed>();
