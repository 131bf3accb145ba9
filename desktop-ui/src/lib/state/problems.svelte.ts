/** Problems that belong to no place of a page: shown in its corner until they are dismissed. */
import { createContext } from 'svelte';

import { toProblem } from '$lib/api/problem';
import type { Problem } from '$lib/api/types';

const SHOWN_MAX = 3;

export class Problems {
  list = $state.raw<{ id: number; problem: Problem }[]>([]);
  #next = 0;

  /** Shows what was thrown. The same problem twice is shown once. */
  show(error: unknown): void {
    let problem = toProblem(error);
    let others = this.list.filter(
      ({ problem: { title, detail } }) => title !== problem.title || detail !== problem.detail,
    );
    this.list = [...others, { id: this.#next++, problem }].slice(-SHOWN_MAX);
  }

  dismiss(id: number): void {
    this.list = this.list.filter((shown) => shown.id !== id);
  }
}

export const [getProblems, setProblems] = createContext<Problems>();
