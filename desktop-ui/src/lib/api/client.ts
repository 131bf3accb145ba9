/** The coordinator's API, typed from the document the coordinator itself wrote. */
import createClient, { type Middleware } from 'openapi-fetch';
import { createContext } from 'svelte';

import { ProblemError, toProblem, unreachable } from './problem';
import type { paths } from './schema';

export type Api = ReturnType<typeof createApi>;

/** A dead network becomes a problem like any other, so callers handle one kind of failure. */
const networkFailure: Middleware = {
  onError({ error }) {
    let problem = error instanceof ProblemError ? error.problem : unreachable();
    return Response.json(problem, { status: problem.status });
  },
};

/** How a request leaves the page: over the network in a browser, through the app in its window. */
export type Send = (request: Request) => Promise<Response>;

export function createApi(send: Send) {
  // The window has no address of the coordinator: requests carry the path, the app knows the rest.
  let api = createClient<paths>({ baseUrl: location.origin, fetch: send });
  api.use(networkFailure);
  return api;
}

/** The data of a reply, or its problem thrown. */
export function dataOf<T>(reply: { data?: T; error?: unknown }): T {
  if (reply.error !== undefined || reply.data === undefined) {
    throw new ProblemError(toProblem(reply.error));
  }
  return reply.data;
}

export const [getApi, setApi] = createContext<Api>();
