/** Failures as the coordinator words them: a title, a detail, and a kind to branch on. */
import type { Problem } from './types';

/** A problem on its way to somebody who can show it. */
export class ProblemError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.title);
    this.name = 'ProblemError';
    this.problem = problem;
  }
}

export function unreachable(detail?: string): Problem {
  return {
    type: '/problems/unreachable',
    kind: 'unreachable',
    title: 'The coordinator cannot be reached',
    status: 503,
    detail: detail ?? 'Check that it runs and that this computer is in its network.',
  };
}

/** A problem of the page itself, in the same shape, so that callers handle one kind of failure. */
export function ownProblem(title: string, detail?: string): Problem {
  return { type: '/problems/unknown', kind: 'unknown', title, status: 400, detail: detail ?? null };
}

function isProblem(value: unknown): value is Problem {
  return (
    typeof value === 'object' &&
    value !== null &&
    'kind' in value &&
    typeof value.kind === 'string' &&
    'title' in value &&
    typeof value.title === 'string'
  );
}

/** What was thrown or replied, as a problem. Never the text of an unknown object. */
export function toProblem(value: unknown): Problem {
  if (value instanceof ProblemError) return value.problem;
  if (isProblem(value)) return value;
  return ownProblem('Something went wrong in the page', 'Reload it and try again.');
}

/** Reads the problem in a refused reply; a proxy's own error page becomes one too. */
export async function problemOf(response: Response): Promise<Problem> {
  let body: unknown = await response.json().catch(() => null);
  if (isProblem(body)) return body;
  return {
    ...ownProblem('The coordinator reported a problem'),
    status: response.status,
    detail: `It replied with status ${response.status}.`,
  };
}
