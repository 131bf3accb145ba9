/** Everything a terminal view shows, kept apart from the view, so that leaving the page loses nothing. */

/** About two hundred thousand lines; the oldest goes first. */
const CHARS_MAX = 8 * 1024 * 1024;

export interface TranscriptView {
  write(text: string): void;
  clear(): void;
}

export class Transcript {
  #chunks: string[] = [];
  #chars = 0;
  #view: TranscriptView | null = null;

  get isEmpty(): boolean {
    return this.#chunks.length === 0;
  }

  /** Adds text that is safe for a terminal. */
  write(text: string): void {
    if (text === '') return;
    this.#chunks.push(text);
    this.#chars += text.length;
    while (this.#chars > CHARS_MAX && this.#chunks.length > 1) {
      this.#chars -= this.#chunks.shift()?.length ?? 0;
    }
    this.#view?.write(text);
  }

  clear(): void {
    this.#chunks = [];
    this.#chars = 0;
    this.#view?.clear();
  }

  /** Shows what there is and what comes; returns the function that ends it. */
  show(view: TranscriptView): () => void {
    this.#view = view;
    for (let chunk of this.#chunks) view.write(chunk);
    return () => {
      if (this.#view === view) this.#view = null;
    };
  }
}
