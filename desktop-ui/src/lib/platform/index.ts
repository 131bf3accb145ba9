/** What the page can ask of the place it runs in. Two implementations: the Tauri window and a browser. */
import { isTauri } from '@tauri-apps/api/core';
import { createContext } from 'svelte';

import type { Send } from '$lib/api/client';
import type {
  Artifact,
  LocalHistory,
  LocalStatus,
  OutputEvent,
  PoolEvent,
  Problem,
  Role,
} from '$lib/api/types';

/** Who is signed in, and where. */
export interface Session {
  signedIn: boolean;
  url: string;
  name: string;
  role: Role;
  directMode: boolean;
  version: string;
}

export interface SignIn {
  /** Address of the coordinator; a browser is already there and leaves it out. */
  url?: string;
  token: string;
  /** Fingerprint of the coordinator's CA; only the window can check one. */
  fingerprint?: string;
}

/** A folder or zip that was chosen and is not uploaded yet. */
export interface Attachment {
  pickId: string;
  name: string;
  sizeBytes: number;
}

export interface Progress {
  sentBytes: number;
  totalBytes: number;
  /** A folder is packed and hashed before anything is sent. */
  phase: 'packing' | 'sending';
}

export interface Uploaded {
  digest: string;
  filename: string;
  sizeBytes: number;
  /** The coordinator had these bytes, so nothing was sent. */
  alreadyThere: boolean;
}

/** Hears a stream of events. */
export interface Listener<E> {
  onEvent(event: E): void;
  /** The stream was cut (`false`) or goes on (`true`); following resumes by itself. */
  onConnection(connected: boolean): void;
  /** Following ended for good. */
  onProblem(problem: Problem): void;
}

export type OutputListener = Listener<OutputEvent>;

/** Hears what is dropped on the page. */
export interface DropListener {
  onAttached(attachment: Attachment): void;
  /** Something is held over the page (`true`) or not any more. */
  onDragging(over: boolean): void;
  /** What was dropped cannot be handed over. */
  onProblem(problem: Problem): void;
}

export interface DirectRun {
  command: string;
  attachment: Attachment | null;
  outputs: string[];
}

/** The worker inside this desktop app. */
export interface LocalWorker {
  status(): Promise<LocalStatus>;
  setPaused(paused: boolean): Promise<void>;
  join(code: string): Promise<LocalStatus>;
  history(limit: number): Promise<LocalHistory>;
  /** Calls back on every change; returns the function that stops it. */
  onStatus(listener: (status: LocalStatus) => void): () => void;
}

/** Failures are thrown as `ProblemError`. */
export interface Platform {
  session(): Promise<Session>;
  signIn(credentials: SignIn): Promise<Session>;
  signOut(): Promise<void>;
  /** Sends one request to the coordinator. */
  send: Send;
  /** Follows a job's output from its beginning; returns the function that stops it. */
  follow(jobId: string, listener: OutputListener): () => void;
  /** Follows what changes in the pool from now on; returns the function that stops it. */
  followPool(listener: Listener<PoolEvent>): () => void;
  /** Runs on the coordinator's own machine; returns the function that ends it. */
  runDirect(run: DirectRun, listener: OutputListener): () => void;
  /** Lets the person choose; `null` when they changed their mind. */
  pick(kind: 'folder' | 'zip'): Promise<Attachment | null>;
  /** Calls back with what is dropped on the page; returns the function that stops it. */
  onAttached(listener: DropListener): () => void;
  upload(
    attachment: Attachment,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<Uploaded>;
  /** Brings a result file home; says where it is. */
  save(artifact: Artifact, onProgress: (sentBytes: number) => void): Promise<string>;
  /** `null` in a browser: the page explains what needs it instead of failing. */
  localWorker: LocalWorker | null;
}

/** Chosen when the page starts, so one bundle serves both places. */
export async function openPlatform(inWindow = isTauri()): Promise<Platform> {
  if (inWindow) {
    let { tauriPlatform } = await import('./tauri');
    return tauriPlatform();
  }
  let { browserPlatform } = await import('./browser');
  return browserPlatform();
}

export const [getPlatform, setPlatform] = createContext<Platform>();
