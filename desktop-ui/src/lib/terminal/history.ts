/** Commands typed before, walked with the arrow keys and kept between visits. */

export interface HistoryStore {
  load(): string[];
  save(entries: string[]): void;
}

const ENTRIES_MAX = 200;
const KEY = 'lull.history';

export class CommandHistory {
  #entries: string[];
  /** Position while walking; the length of the list is the line being typed. */
  #at: number;
  #draft = '';
  #store: HistoryStore;

  constructor(store: HistoryStore) {
    this.#store = store;
    this.#entries = store.load();
    this.#at = this.#entries.length;
  }

  /** Remembers a command that was run. */
  add(command: string): void {
    if (this.#entries.at(-1) !== command) {
      this.#entries = [...this.#entries, command].slice(-ENTRIES_MAX);
      this.#store.save(this.#entries);
    }
    this.#at = this.#entries.length;
    this.#draft = '';
  }

  /** The command before this one; `null` at the oldest. `current` is kept when it is the line being typed. */
  older(current: string): string | null {
    if (this.#at === 0) return null;
    if (this.#at === this.#entries.length) this.#draft = current;
    this.#at -= 1;
    return this.#entries[this.#at] ?? null;
  }

  /** The command after this one, at last the line that was being typed; `null` when already there. */
  newer(): string | null {
    if (this.#at >= this.#entries.length) return null;
    this.#at += 1;
    return this.#entries[this.#at] ?? this.#draft;
  }
}

/** Kept in the browser's storage. What is not a list of texts is taken as empty. */
export function browserHistory(): HistoryStore {
  return {
    load() {
      try {
        let stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? '[]');
        if (!Array.isArray(stored)) return [];
        return stored.filter((entry) => typeof entry === 'string').slice(-ENTRIES_MAX);
      } catch {
        return [];
      }
    },
    save(entries) {
      try {
        localStorage.setItem(KEY, JSON.stringify(entries));
      } catch {
        // Full or switched off: the history lasts as long as the page.
      }
    },
  };
}
