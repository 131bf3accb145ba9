/** The page in the desktop app's window: everything goes through the app, which knows and pins the coordinator. */
import { Channel, invoke } from '@tauri-apps/api/core';
import { type EventCallback, listen } from '@tauri-apps/api/event';

import { ProblemError, toProblem } from '$lib/api/problem';
import type { LocalHistory, LocalStatus, PoolEvent, OutputEvent, Problem } from '$lib/api/types';

import type { Attachment, Listener, Platform, Session, Uploaded } from './index';

/** Calls a command of the app; its refusals are problems. */
async function call<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
  try {
    return await invoke<T>(command, args);
  } catch (error) {
    throw new ProblemError(toProblem(error));
  }
}

/** Listens until told to stop, also when that comes before the listening began. */
function onEvent<T>(name: string, listener: EventCallback<T>): () => void {
  let stopped = false;
  let listening = listen<T>(name, (event) => {
    if (!stopped) listener(event);
  });
  return () => {
    stopped = true;
    void listening.then((stop) => stop());
  };
}

function channel<T>(onMessage: (message: T) => void): Channel<T> {
  let made = new Channel<T>();
  made.onmessage = onMessage;
  return made;
}

/** What the app reports of what is followed besides its events: what becomes of the following itself. */
type Link = { event: 'disconnected' } | { event: 'refused'; problem: Problem };

function isLink(message: { event: string }): message is Link {
  return message.event === 'disconnected' || message.event === 'refused';
}

/** Starts a command that reports to a channel and can be stopped by the id it replies with. */
function follow<E extends { event: string }>(
  command: string,
  args: Record<string, unknown>,
  listener: Listener<E>,
): () => void {
  let stopped = false;
  let events = channel<E | Link>((message) => {
    if (stopped) return;
    if (!isLink(message)) {
      listener.onConnection(true);
      listener.onEvent(message);
    } else if (message.event === 'refused') listener.onProblem(message.problem);
    else listener.onConnection(false);
  });
  let started = call<number>(command, { ...args, channel: events });
  started.catch((error: unknown) => {
    if (!stopped) listener.onProblem(toProblem(error));
  });
  return () => {
    stopped = true;
    started
      .then((followId) => call('stop_following', { followId }))
      .catch(() => undefined /* it never started, or has ended by itself */);
  };
}

export function tauriPlatform(): Platform {
  return {
    session: () => call<Session>('session'),
    signIn: (credentials) => call<Session>('sign_in', { ...credentials }),
    signOut: () => call('sign_out'),

    async send(request) {
      let url = new URL(request.url);
      let text = await request.text();
      let reply = await call<{ status: number; body: unknown }>('api_request', {
        method: request.method,
        path: url.pathname + url.search,
        body: text === '' ? null : (JSON.parse(text) as unknown),
      });
      return Response.json(reply.body, { status: reply.status });
    },

    follow: (jobId, listener) => follow<OutputEvent>('follow_output', { jobId }, listener),

    followPool: (listener) => follow<PoolEvent>('follow_pool', {}, listener),

    runDirect: (run, listener) =>
      follow<OutputEvent>(
        'run_direct',
        { command: run.command, pickId: run.attachment?.pickId ?? null, outputs: run.outputs },
        listener,
      ),

    pick: (kind) => call<Attachment | null>('pick_files', { kind }),

    onAttached(listener) {
      let stops = [
        onEvent<Attachment>('attached', ({ payload }) => listener.onAttached(payload)),
        onEvent<Problem>('attach-refused', ({ payload }) => listener.onProblem(payload)),
      ];
      return () => stops.forEach((stop) => stop());
    },

    async upload(attachment, onProgress) {
      let sent = 0;
      let progress = channel<{ sentBytes: number; totalBytes: number }>((report) => {
        sent = report.sentBytes;
        onProgress({ ...report, phase: 'sending' });
      });
      onProgress({ sentBytes: 0, totalBytes: attachment.sizeBytes, phase: 'packing' });
      let uploaded = await call<Omit<Uploaded, 'alreadyThere'>>('upload_picked', {
        pickId: attachment.pickId,
        channel: progress,
      });
      return { ...uploaded, alreadyThere: sent === 0 && uploaded.sizeBytes > 0 };
    },

    async save(artifact, onProgress) {
      let { path } = await call<{ path: string }>('save_artifact', {
        digest: artifact.digest,
        name: artifact.name,
        channel: channel<{ sentBytes: number }>((report) => onProgress(report.sentBytes)),
      });
      return path;
    },

    localWorker: {
      status: () => call<LocalStatus>('local_status'),
      setPaused: (paused) => call('set_paused', { paused }),
      join: (code) => call<LocalStatus>('join', { code }),
      history: (limit) => call<LocalHistory>('local_history', { limit }),
      onStatus: (listener) =>
        onEvent<LocalStatus>('local-status', ({ payload }) => listener(payload)),
    },
  };
}
