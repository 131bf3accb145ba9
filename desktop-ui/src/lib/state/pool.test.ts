// @vitest-environment jsdom
/** Tests of live data: read once for many changes, not for a hidden page, again after failing, never after its end. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { ProblemError } from '$lib/api/problem';
import type { PoolEvent, Problem } from '$lib/api/types';
import type { Listener, Platform } from '$lib/platform';

import { Live, PoolFeed } from './pool.svelte';

let visibility: DocumentVisibilityState = 'visible';

beforeEach(() => {
  vi.useFakeTimers();
  visibility = 'visible';
  vi.spyOn(document, 'visibilityState', 'get').mockImplementation(() => visibility);
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** A feed whose stream is the returned listener. */
function feed(): { pool: PoolFeed; stream: Listener<PoolEvent> } {
  let stream: Listener<PoolEvent> | null = null;
  let platform = {
    followPool: (listener: Listener<PoolEvent>) => {
      stream = listener;
      return () => undefined;
    },
  } as Partial<Platform> as Platform;
  let pool = new PoolFeed(platform);
  pool.follow(() => undefined);
  if (stream === null) throw new Error('the platform was not asked to follow');
  return { pool, stream };
}

function refused(kind: Problem['kind'], status: number, title: string): ProblemError {
  return new ProblemError({ type: 'about:blank', kind, status, title });
}

const RESET: PoolEvent = { event: 'reset' };

async function show(): Promise<void> {
  visibility = 'visible';
  document.dispatchEvent(new Event('visibilitychange'));
  await vi.runAllTimersAsync();
}

test('many changes at once are one reading', async () => {
  let { pool, stream } = feed();
  let read = vi.fn(() => Promise.resolve('data'));
  let live = new Live(pool, read);
  live.start();
  await vi.runAllTimersAsync();
  expect(live.data).toBe('data');
  expect(read).toHaveBeenCalledTimes(1);
  for (let n = 0; n < 100; n += 1) stream.onEvent(RESET);
  await vi.runAllTimersAsync();
  expect(read).toHaveBeenCalledTimes(2);
});

test('a change while reading is read after it', async () => {
  let { pool, stream } = feed();
  let replies = ['old', 'new'];
  let read = vi.fn(async () => {
    if (replies.length === 2) stream.onEvent(RESET);
    return Promise.resolve(replies.shift());
  });
  let live = new Live(pool, read);
  live.start();
  await vi.runAllTimersAsync();
  expect(live.data).toBe('new');
});

test('what does not concern it is not read, a reset always is', async () => {
  let { pool, stream } = feed();
  let read = vi.fn(() => Promise.resolve(1));
  let live = new Live(pool, read, () => false);
  live.start();
  await vi.runAllTimersAsync();
  stream.onEvent({ event: 'worker', workerId: 'w', status: 'online' } as PoolEvent);
  await vi.runAllTimersAsync();
  expect(read).toHaveBeenCalledTimes(1);
  stream.onEvent(RESET);
  await vi.runAllTimersAsync();
  expect(read).toHaveBeenCalledTimes(2);
});

test('a page that nobody sees reads nothing until it is looked at', async () => {
  let { pool, stream } = feed();
  let read = vi.fn(() => Promise.resolve(1));
  new Live(pool, read).start();
  await vi.runAllTimersAsync();
  visibility = 'hidden';
  stream.onEvent(RESET);
  await vi.runAllTimersAsync();
  expect(read).toHaveBeenCalledTimes(1);
  await show();
  expect(read).toHaveBeenCalledTimes(2);
  await show();
  expect(read).toHaveBeenCalledTimes(2);
});

test('a failure is told, keeps what was known, and is tried again unless it is final', async () => {
  let { pool } = feed();
  let replies: (() => Promise<string>)[] = [
    () => Promise.resolve('known'),
    () => Promise.reject(refused('unavailable', 503, 'Busy')),
    () => Promise.resolve('known again'),
    () => Promise.reject(refused('not_found', 404, 'Gone')),
  ];
  let read = vi.fn(() => replies.shift()?.() ?? Promise.reject(new Error('asked too often')));
  let live = new Live(pool, read);
  live.start();
  await vi.runAllTimersAsync();
  await live.refresh();
  expect([live.data, live.problem?.title]).toEqual(['known', 'Busy']);
  await vi.runAllTimersAsync();
  expect([live.data, live.problem]).toEqual(['known again', null]);
  await live.refresh();
  await vi.runAllTimersAsync();
  expect([live.data, live.problem?.title]).toEqual(['known again', 'Gone']);
  expect(read).toHaveBeenCalledTimes(4);
});

test('a stream that comes back reads what failed or changed meanwhile', async () => {
  let { pool, stream } = feed();
  let read = vi.fn(() => Promise.resolve(1));
  new Live(pool, read).start();
  await vi.runAllTimersAsync();
  stream.onConnection(false);
  expect(pool.connected).toBe(false);
  stream.onConnection(true);
  await vi.runAllTimersAsync();
  expect(pool.connected).toBe(true);
  expect(read).toHaveBeenCalledTimes(2);
});

test('what is stopped by its own data keeps that data and reads no more', async () => {
  let { pool, stream } = feed();
  let read = vi.fn(() => Promise.resolve('done'));
  let stop: () => void = () => undefined;
  let live = new Live(
    pool,
    read,
    () => true,
    () => stop(),
  );
  stop = live.start();
  await vi.runAllTimersAsync();
  stream.onEvent(RESET);
  await vi.runAllTimersAsync();
  expect(live.data).toBe('done');
  expect(read).toHaveBeenCalledTimes(1);
});

test('a reply that comes after the end is dropped', async () => {
  let { pool } = feed();
  let live = new Live(pool, () => Promise.resolve('late'));
  live.start()();
  await vi.runAllTimersAsync();
  expect(live.data).toBeNull();
});
