/** Follows a stream of events over HTTP, a job's output or the pool's changes, and resumes after every cut. */
import type { Send } from '$lib/api/client';
import { ProblemError, problemOf, toProblem } from '$lib/api/problem';

import type { Listener } from './index';
import { readEvents } from './sse';

const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 10_000;

/** Refusals that no waiting changes. */
export function isFinal(status: number): boolean {
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}

/** Follows until an `ended` event, a refusal or an abort. Never throws. */
export async function follow<E extends { event: string }>(
  send: Send,
  url: string,
  listener: Listener<E>,
  signal: AbortSignal,
  wait: (ms: number, signal: AbortSignal) => Promise<void> = pause,
): Promise<void> {
  let cursor = '';
  let backoff = BACKOFF_MS_MIN;
  while (!signal.aborted) {
    try {
      let headers: Record<string, string> = { accept: 'text/event-stream' };
      if (cursor !== '') headers['last-event-id'] = cursor;
      let response = await send(new Request(url, { headers, signal, cache: 'no-store' }));
      if (!response.ok || !response.body) throw new ProblemError(await problemOf(response));
      listener.onConnection(true);
      let ended = false;
      await readEvents(response.body, ({ id, data }) => {
        cursor = id;
        backoff = BACKOFF_MS_MIN;
        let event = JSON.parse(data) as E;
        if (event.event === 'ended') ended = true;
        listener.onEvent(event);
      });
      if (ended) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ProblemError && isFinal(error.problem.status)) {
        listener.onProblem(toProblem(error));
        return;
      }
    }
    listener.onConnection(false);
    await wait(backoff, signal);
    backoff = Math.min(backoff * 2, BACKOFF_MS_MAX);
  }
}

/** Waits, or returns early when aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    let timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
