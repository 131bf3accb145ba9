/** The terminal of the page: what is typed runs here, one command at a time, and survives leaving the page. */
import { createContext } from 'svelte';

import { type Api, dataOf } from '$lib/api/client';
import { ProblemError, toProblem } from '$lib/api/problem';
import type { Artifact, CreateJob, Job, OutputEvent, Problem } from '$lib/api/types';
import { size } from '$lib/format/size';
import { waitingReason } from '$lib/format/waiting';
import type { Attachment, OutputListener, Platform, Progress, Uploaded } from '$lib/platform';
import { pause } from '$lib/platform/follow';

import { CommandHistory, browserHistory } from './history';
import { EventText, noteLine, promptLines } from './notes';
import { Transcript } from './transcript';

export type Mode = 'distributed' | 'direct';
export type Phase = 'packing' | 'sending' | 'submitting' | 'waiting' | 'running' | 'ended';

const SUBMIT_TRIES = 4;
const ASK_WHY_EVERY_MS = 1_500;

/** One command from Enter to its end. */
export class Run {
  phase = $state<Phase>('submitting');
  progress = $state<Progress | null>(null);
  jobId = $state<string | null>(null);
  hostname = $state<string | null>(null);
  startedAt = $state<number | null>(null);
  /** Why it waits, while it does. */
  waiting = $state('Submitted. Waiting for an idle PC.');
  connected = $state(true);
  cancelling = $state(false);
  /** The job as it ended. */
  job = $state.raw<Job | null>(null);
  problem = $state.raw<Problem | null>(null);
  readonly mode: Mode;
  readonly abort = new AbortController();
  stop: () => void = () => undefined;

  constructor(mode: Mode) {
    this.mode = mode;
  }

  get artifacts(): Artifact[] {
    return this.job?.artifacts ?? [];
  }

  get busy(): boolean {
    return this.phase !== 'ended';
  }
}

export class TerminalSession {
  readonly transcript = new Transcript();
  readonly history = new CommandHistory(browserHistory());
  mode = $state<Mode>('distributed');
  attachment = $state.raw<Attachment | null>(null);
  outputs = $state('out/**');
  run = $state.raw<Run | null>(null);
  /** Nothing was run or shown yet: the page greets. */
  fresh = $state(true);
  #text = new EventText();
  #platform: Platform;
  #api: Api;

  constructor(platform: Platform, api: Api) {
    this.#platform = platform;
    this.#api = api;
  }

  get busy(): boolean {
    return this.run?.busy ?? false;
  }

  /** Runs what was typed. Refused while another command is followed. */
  async start(command: string): Promise<void> {
    if (this.busy || command.trim() === '') return;
    let run = new Run(this.mode);
    this.run = run;
    this.fresh = false;
    this.history.add(command);
    this.transcript.write(this.#text.note(promptLines(command)));
    try {
      if (run.mode === 'direct') this.#startDirect(run, command);
      else await this.#startDistributed(run, command);
    } catch (error) {
      if (run.abort.signal.aborted) this.#end(run, 'cancelled before it was submitted');
      else this.#fail(run, toProblem(error));
    }
  }

  /** Ends the running command: Ctrl+C. */
  async cancel(): Promise<void> {
    let run = this.run;
    if (!run?.busy || run.cancelling) return;
    run.cancelling = true;
    if (run.jobId === null) {
      run.abort.abort();
      if (run.mode === 'direct') {
        run.stop();
        this.#end(run, 'stopped');
      }
      return;
    }
    try {
      dataOf(await this.#api.POST('/api/jobs/cancel', { body: { jobId: run.jobId } }));
    } catch (error) {
      // It ended in the meantime: its own end tells all.
      if (toProblem(error).kind === 'conflict') return;
      run.cancelling = false;
      run.problem = toProblem(error);
    }
  }

  /** Stops watching; the job goes on and is found under Jobs. */
  leave(): void {
    let run = this.run;
    if (!run?.busy || run.jobId === null) return;
    run.stop();
    run.abort.abort();
    this.#end(run, `left running: job ${run.jobId}`);
    this.run = null;
  }

  clear(): void {
    this.transcript.clear();
    this.#text = new EventText();
  }

  /** Whoever signs in next sees nothing of what was shown here. */
  forget(): void {
    this.run?.stop();
    this.run?.abort.abort();
    this.run = null;
    this.attachment = null;
    this.mode = 'distributed';
    this.fresh = true;
    this.clear();
  }

  async #startDistributed(run: Run, command: string): Promise<void> {
    let body: CreateJob = { command, outputs: this.#outputPatterns(), idempotencyKey: newKey() };
    if (this.attachment) {
      let uploaded = await this.#upload(run, this.attachment);
      body.fileDigest = uploaded.digest;
      body.filename = uploaded.filename;
    }
    run.phase = 'submitting';
    run.progress = null;
    let job = await this.#submit(body, run.abort.signal);
    run.jobId = job.jobId;
    this.transcript.write(noteLine(`job ${job.jobId}`));
    // Ctrl+C while the submission was under way: the job exists, so it is cancelled like any other.
    if (run.cancelling) {
      run.cancelling = false;
      void this.cancel();
    }
    if (run.phase === 'submitting') run.phase = 'waiting';
    run.stop = this.#platform.follow(job.jobId, this.#listener(run));
    void this.#tellWhy(run);
  }

  #startDirect(run: Run, command: string): void {
    run.phase = 'running';
    run.startedAt = Date.now();
    if (this.attachment) this.transcript.write(noteLine(`with ${this.attachment.name}`));
    let direct = { command, attachment: this.attachment, outputs: this.#outputPatterns() };
    run.stop = this.#platform.runDirect(direct, this.#listener(run));
  }

  async #upload(run: Run, attachment: Attachment): Promise<Uploaded> {
    run.phase = 'packing';
    let report = (progress: Progress) => {
      run.phase = progress.phase;
      run.progress = progress;
    };
    let uploaded = await this.#platform.upload(attachment, report, run.abort.signal);
    let what = `${uploaded.filename} · ${size(uploaded.sizeBytes)}`;
    this.transcript.write(
      noteLine(uploaded.alreadyThere ? `${what} · already there, nothing sent` : `${what} · sent`),
    );
    return uploaded;
  }

  /** The idempotency key makes a submission whose reply was lost safe to send again. */
  async #submit(body: CreateJob, signal: AbortSignal): Promise<Job> {
    for (let left = SUBMIT_TRIES - 1; ; left -= 1) {
      try {
        return dataOf(await this.#api.POST('/api/jobs/create', { body }));
      } catch (error) {
        let { kind } = toProblem(error);
        let passing = kind === 'unreachable' || kind === 'unavailable' || kind === 'timed_out';
        if (!passing || left === 0) throw error;
        await pause(1000, signal);
        if (signal.aborted) throw error;
      }
    }
  }

  #outputPatterns(): string[] {
    return this.outputs
      .split(/[\s,]+/)
      .map((pattern) => pattern.trim())
      .filter((pattern) => pattern !== '');
  }

  #listener(run: Run): OutputListener {
    return {
      onEvent: (event) => this.#take(run, event),
      onConnection: (connected) => {
        run.connected = connected;
      },
      onProblem: (problem) => this.#fail(run, problem),
    };
  }

  #take(run: Run, event: OutputEvent): void {
    if (!run.busy) return;
    if (event.event === 'started') {
      run.phase = 'running';
      run.hostname = event.hostname;
      run.startedAt = Date.now();
    }
    if (event.event === 'requeued') {
      run.phase = 'waiting';
      run.hostname = null;
      void this.#tellWhy(run);
    }
    this.transcript.write(this.#text.of(event));
    if (event.event === 'ended') {
      run.job = event.job;
      run.phase = 'ended';
    }
  }

  #fail(run: Run, problem: Problem): void {
    run.problem = problem;
    this.#end(run, problem.detail ? `${problem.title}: ${problem.detail}` : problem.title);
  }

  #end(run: Run, note: string): void {
    run.phase = 'ended';
    this.transcript.write(this.#text.note(noteLine(note)));
  }

  /** Says why the job waits for as long as it does. */
  async #tellWhy(run: Run): Promise<void> {
    while (run.phase === 'waiting') {
      await pause(ASK_WHY_EVERY_MS / 3, run.abort.signal);
      if (run.phase !== 'waiting') return;
      try {
        let { workers } = dataOf(await this.#api.GET('/api/workers'));
        run.waiting = waitingReason(workers);
      } catch (error) {
        if (error instanceof ProblemError) run.waiting = `Waiting. ${error.problem.title}.`;
      }
      await pause(ASK_WHY_EVERY_MS, run.abort.signal);
    }
  }
}

/** `crypto.randomUUID` needs HTTPS or loopback; this does not. */
function newKey(): string {
  let bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export const [getTerminal, setTerminal] = createContext<TerminalSession>();
