/** Who is signed in: what every page may ask before it offers something. */
import { createContext } from 'svelte';

import { toProblem } from '$lib/api/problem';
import type { Problem } from '$lib/api/types';
import type { Platform, Session, SignIn } from '$lib/platform';

export class SessionStore {
  current = $state.raw<Session | null>(null);
  /** Why signing in or asking who is signed in failed. */
  problem = $state.raw<Problem | null>(null);
  loading = $state(true);
  #platform: Platform;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  get signedIn(): boolean {
    return this.current?.signedIn ?? false;
  }

  /** Viewers read; submitters and admins also run and cancel. */
  get maySubmit(): boolean {
    return this.signedIn && this.current?.role !== 'viewer';
  }

  async load(): Promise<void> {
    await this.#settle(() => this.#platform.session());
  }

  async signIn(credentials: SignIn): Promise<void> {
    await this.#settle(() => this.#platform.signIn(credentials));
  }

  async signOut(): Promise<void> {
    await this.#platform.signOut().catch(() => undefined);
    this.current = null;
    this.problem = null;
  }

  /** The coordinator does not take the token any more. */
  expired(problem: Problem): void {
    if (!this.signedIn) return;
    void this.signOut().then(() => {
      this.problem = problem;
    });
  }

  async #settle(ask: () => Promise<Session>): Promise<void> {
    this.loading = true;
    try {
      this.current = await ask();
      this.problem = null;
    } catch (error) {
      this.problem = toProblem(error);
    } finally {
      this.loading = false;
    }
  }
}

export const [getSession, setSession] = createContext<SessionStore>();
