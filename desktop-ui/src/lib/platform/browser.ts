/** The page in a browser: requests over the network with a token that lives as long as the tab. */
import { ProblemError, ownProblem, problemOf, toProblem, unreachable } from '$lib/api/problem';
import type { Artifact, OutputEvent } from '$lib/api/types';
import { Attachments } from '$lib/files/attachments';
import { download } from '$lib/files/download';
import { pack } from '$lib/files/pack';
import { uploadBlob } from '$lib/files/upload';

import { follow } from './follow';
import type { DirectRun, OutputListener, Platform, Session, SignIn } from './index';
import { readEvents } from './sse';

const TOKEN_KEY = 'lull.token';

const SIGNED_OUT: Session = {
  signedIn: false,
  url: '',
  name: '',
  role: 'viewer',
  directMode: false,
  version: '',
};

/** Session storage may be switched off; then the token lives as long as the page. */
function remembered(): string | null {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null;
  }
}

function remember(token: string | null): void {
  try {
    if (token === null) sessionStorage.removeItem(TOKEN_KEY);
    else sessionStorage.setItem(TOKEN_KEY, token);
  } catch {
    // Signing in again after a reload is all it costs.
  }
}

export function browserPlatform(): Platform {
  let token = remembered();
  let attachments = new Attachments();

  async function send(request: Request): Promise<Response> {
    let authorized = new Request(request);
    if (token !== null) authorized.headers.set('authorization', `Bearer ${token}`);
    try {
      return await fetch(authorized);
    } catch (error) {
      if (request.signal.aborted) throw error;
      throw new ProblemError(unreachable());
    }
  }

  async function whoAmI(): Promise<Session> {
    let response = await send(new Request('/api/whoami', { cache: 'no-store' }));
    if (!response.ok) throw new ProblemError(await problemOf(response));
    let me = (await response.json()) as Omit<Session, 'signedIn' | 'url'>;
    return { ...me, signedIn: true, url: location.origin };
  }

  return {
    localWorker: null,
    send,

    async session() {
      if (token === null) return SIGNED_OUT;
      try {
        return await whoAmI();
      } catch (error) {
        if (toProblem(error).kind !== 'unauthenticated') throw error;
        remember((token = null));
        return SIGNED_OUT;
      }
    },

    async signIn(credentials: SignIn) {
      let before = token;
      token = credentials.token.trim();
      // What no header can carry is no token, and fetch would fail on it without saying so.
      if (!/^[\x21-\x7e]+$/.test(token)) {
        token = before;
        throw new ProblemError(
          ownProblem('That is not a token of Lull', 'It is one word that begins with lullt_.'),
        );
      }
      try {
        let session = await whoAmI();
        remember(token);
        return session;
      } catch (error) {
        token = before;
        throw error;
      }
    },

    signOut() {
      remember((token = null));
      return Promise.resolve();
    },

    follow(jobId, listener) {
      let abort = new AbortController();
      let query = new URLSearchParams({ jobId, view: 'terminal' });
      void follow(send, `/api/jobs/output?${query}`, listener, abort.signal);
      return () => abort.abort();
    },

    followPool(listener) {
      let abort = new AbortController();
      void follow(send, '/api/events', listener, abort.signal);
      return () => abort.abort();
    },

    runDirect(run, listener) {
      let abort = new AbortController();
      void runDirect(run, listener, abort.signal);
      return () => abort.abort();
    },

    pick: (kind) => attachments.pick(kind),
    onAttached: (listener) => attachments.onDrop(listener),

    async upload(attachment, onProgress, signal) {
      let packed = await pack(attachments.get(attachment.pickId), onProgress, signal);
      let stored = await uploadBlob(send, () => token, packed, onProgress, signal);
      return { ...stored, filename: packed.filename };
    },

    async save(artifact: Artifact, onProgress) {
      await download(send, artifact, onProgress);
      return `${artifact.name} is in your downloads`;
    },
  };

  /** The form goes out in one piece and its reply streams; a cut cannot be resumed. */
  async function runDirect(run: DirectRun, listener: OutputListener, signal: AbortSignal) {
    try {
      let form = new FormData();
      form.set('commands', run.command);
      form.set('mode', 'direct');
      if (run.outputs.length > 0) form.set('outputs', run.outputs.join('\n'));
      if (run.attachment) {
        let packed = await pack(attachments.get(run.attachment.pickId), () => undefined, signal);
        form.set('file', packed.blob, packed.filename);
      }
      let request = new Request('/api/execute?view=terminal', {
        method: 'POST',
        headers: { accept: 'text/event-stream' },
        body: form,
        signal,
      });
      let response = await send(request);
      if (!response.ok || !response.body) throw new ProblemError(await problemOf(response));
      listener.onConnection(true);
      let ended = false;
      await readEvents(response.body, ({ data }) => {
        let event = JSON.parse(data) as OutputEvent;
        if (event.event === 'ended') ended = true;
        listener.onEvent(event);
      });
      if (!ended) throw new ProblemError(unreachable('The connection was lost before the end.'));
    } catch (error) {
      if (!signal.aborted) listener.onProblem(toProblem(error));
    }
  }
}
