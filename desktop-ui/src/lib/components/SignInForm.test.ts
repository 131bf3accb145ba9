// @vitest-environment jsdom
/** Tests of the sign-in form: refused with words, usable again, right fields for the place. */
import { flushSync, mount, unmount } from 'svelte';
import { afterEach, expect, test, vi } from 'vitest';

import { ProblemError } from '$lib/api/problem';
import type { Platform, Session } from '$lib/platform';

import SignInFrame from './SignInForm.test-frame.svelte';

// Asked when the theme's module is loaded; there are no media in this environment.
vi.hoisted(() => {
  globalThis.matchMedia = () => ({ matches: false, addEventListener: () => undefined }) as never;
});

const ADA: Session = {
  signedIn: true,
  url: 'http://pool.example',
  name: 'ada',
  role: 'submitter',
  directMode: false,
  version: '0.1.0',
};

let shown: ReturnType<typeof mount> | null = null;

function show(signIn: Platform['signIn'], inWindow: boolean): void {
  shown = mount(SignInFrame, { target: document.body, props: { signIn, inWindow } });
  flushSync();
}

function type(id: string, text: string): void {
  let field = document.querySelector<HTMLInputElement>(`#${id}`);
  if (!field) throw new Error(`no field ${id}`);
  field.value = text;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  flushSync();
}

function button(): HTMLButtonElement {
  let found = document.querySelector<HTMLButtonElement>('button[type=submit]');
  if (!found) throw new Error('no button');
  return found;
}

afterEach(async () => {
  if (shown) await unmount(shown);
  document.body.replaceChildren();
  vi.unstubAllGlobals();
});

test('a refusal is shown by its title and detail, and the form stays usable', async () => {
  let refusal = {
    type: '',
    kind: 'unauthenticated' as const,
    title: 'A valid token is needed',
    status: 401,
  };
  let signIn = vi.fn(() =>
    Promise.reject(new ProblemError({ ...refusal, detail: 'it has expired' })),
  );
  show(signIn, false);
  expect(button().disabled).toBe(true);
  type('token', 'lullt_old');
  button().click();
  await vi.waitFor(() => expect(document.querySelector('[role=alert]')).not.toBeNull());
  let alert = document.querySelector('[role=alert]')?.textContent;
  expect(alert).toContain('A valid token is needed');
  expect(alert).toContain('it has expired');
  expect(button().disabled).toBe(false);
});

test('a browser asks for the token alone', async () => {
  let signIn = vi.fn(() => Promise.resolve(ADA));
  show(signIn, false);
  expect(document.querySelector('#url')).toBeNull();
  type('token', 'lullt_new');
  button().click();
  await vi.waitFor(() => expect(signIn).toHaveBeenCalledWith({ token: 'lullt_new' }));
});

test('the window also asks where, and a fingerprint goes along only when given', async () => {
  let signIn = vi.fn(() => Promise.resolve(ADA));
  show(signIn, true);
  type('url', ' https://pool.example:7700 ');
  type('token', 'lullt_new');
  button().click();
  await vi.waitFor(() =>
    expect(signIn).toHaveBeenCalledWith({ url: 'https://pool.example:7700', token: 'lullt_new' }),
  );
});
