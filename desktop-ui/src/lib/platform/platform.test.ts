// @vitest-environment jsdom
/** Tests of the choice between window and browser, and of the browser's sign-in. */
import { afterEach, expect, test, vi } from 'vitest';

import { ProblemError } from '$lib/api/problem';

import { openPlatform } from './index';

const ME = { name: 'ada', role: 'submitter', directMode: false, version: '0.1.0' };
const REFUSAL = {
  type: '/problems/unauthenticated',
  kind: 'unauthenticated',
  title: 'A valid token is needed',
  status: 401,
};

/** A coordinator that knows one token; returns what it was asked with. */
function coordinatorKnowing(token: string): (string | null)[] {
  let seen: (string | null)[] = [];
  // The page asks by path, which only a browser can complete.
  let Base = globalThis.Request;
  vi.stubGlobal(
    'Request',
    class extends Base {
      constructor(input: RequestInfo | URL, init?: RequestInit) {
        super(typeof input === 'string' ? new URL(input, 'http://pool.example') : input, init);
      }
    },
  );
  vi.stubGlobal('fetch', (request: Request) => {
    let authorization = request.headers.get('authorization');
    seen.push(authorization);
    return Promise.resolve(
      authorization === `Bearer ${token}`
        ? Response.json(ME)
        : Response.json(REFUSAL, { status: 401 }),
    );
  });
  return seen;
}

afterEach(() => {
  vi.unstubAllGlobals();
  sessionStorage.clear();
});

test('a browser has no worker of its own, the window has one', async () => {
  expect((await openPlatform(false)).localWorker).toBeNull();
  expect((await openPlatform(true)).localWorker).not.toBeNull();
});

test('a token that is accepted is kept for the tab only', async () => {
  coordinatorKnowing('lullt_good');
  let platform = await openPlatform(false);
  expect((await platform.session()).signedIn).toBe(false);
  expect(await platform.signIn({ token: ' lullt_good\n' })).toMatchObject({
    signedIn: true,
    name: 'ada',
  });
  expect(await (await openPlatform(false)).session()).toMatchObject({ signedIn: true });
  expect(localStorage.length).toBe(0);
  await platform.signOut();
  expect((await (await openPlatform(false)).session()).signedIn).toBe(false);
});

test('a token that is refused is told by its problem and not kept', async () => {
  coordinatorKnowing('lullt_good');
  let platform = await openPlatform(false);
  await expect(platform.signIn({ token: 'lullt_bad' })).rejects.toThrow(REFUSAL.title);
  expect(sessionStorage.length).toBe(0);
});

test('what cannot be a token is refused before it is sent', async () => {
  let seen = coordinatorKnowing('lullt_good');
  let platform = await openPlatform(false);
  await expect(platform.signIn({ token: 'two words' })).rejects.toThrow(ProblemError);
  expect(seen).toEqual([]);
});
