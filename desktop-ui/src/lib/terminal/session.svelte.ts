/** The terminal of the page: what is typed runs here, one command at a time, and survives leaving the page. */
import { createContext } from 'svelte';

import { type Api, dataOf } from '$lib/api/client';
import { toProblem } from '$lib/api/problem';
import type { Artifact, CreateJob, Explanation, Job, OutputEvent, Problem } from '$lib/api/types';
import { size } from '$lib/format/size';
import { isTerminal } from '$lib/format/words';
import type { Attachment, OutputListener, Platform, Progress, Uploaded } from '$lib/platform';
import { pause } from '$lib/platform/follow';
import { Live, type PoolFeed } from '$lib/state/pool.svelte';

import { CommandHistory, browserHistory } from './history';
import { EventText, noteLine, promptLines } from './notes';
import { type JobOptions, NO_OPTIONS, submission } from './options';
import { Transcript } from './transcript';

export type Mode = 'distributed' | 'direct';
export type Phase = 'packing' | 'sending' | 'submitting' | 'waiting' | 'running' | 'ended';

const SUBMIT_TRIES = 4;

/** One command from Enter to its end. */
export class Run {
  phase = $state<Phase>('submitting');
  progress = $state<Progress | null>(null);
  jobId = $state<string | null>(null);
  hostname = $state<string | null>(null);
  startedAt = $state<number | null>(null);
  /** Why it waits, kept current while it does. */
  why = $state.raw<Live<Explanation> | null>(null);
  /** The array that it is, kept current. */
  array = $state.raw<Live<Job> | null>(null);
  connected = $state(true);
  cancelling = $state(false);
  /** The job as it ended. */
  job = $state.raw<Job | null>(null);
  problem = $state.raw<Problem | null>(null);
  readonly mode: Mode;
  readonly abort = new AbortController();
  stop: () => void = () => undefined;
  stopAsking: () => void = () => undefined;

  constructor(mode: Mode) {
    this.mode = mode;
  }

  get artifacts(): Artifact[] {
    return this.job?.artifacts ?? [];
  }

  get busy(): boolean {
    return this.phase !== 'ended';
  }

  /** Why it waits, in words. */
  get waiting(): string {
    let sentences = this.why?.data?.sentences ?? [];
    if (sentences.length > 0) return sentences.join(' ');
    return this.why?.problem?.title ?? 'Submitted. Waiting for an idle PC.';
  }
}

export class TerminalSession {
  readonly transcript = new Transcript();
  readonly history = new CommandHistory(browserHistory());
  mode = $state<Mode>('distributed');
  attachment = $state.raw<Attachment | null>(null);
  outputs = $state('out/**');
  options = $state<JobOptions>({ ...NO_OPTIONS });
  run = $state.raw<Run | null>(null);
  /** Nothing was run or shown yet: the page greets. */
  fresh = $state(true);
  #text = new EventText();
  #platform: Platform;
  #api: Api;
  #pool: PoolFeed;

  constructor(platform: Platform, api: Api, pool: PoolFeed) {
    this.#platform = platform;
    this.#api = api;
    this.#pool = pool;
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
    run.stopAsking();
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
    this.run?.stopAsking();
    this.run?.abort.abort();
    this.run = null;
    this.attachment = null;
    this.mode = 'distributed';
    this.options = { ...NO_OPTIONS };
    this.fresh = true;
    this.clear();
  }

  async #startDistributed(run: Run, command: string): Promise<void> {
    let body: CreateJob = {
      ...submission(command, this.options),
      outputs: this.#outputPatterns(),
      idempotencyKey: newKey(),
    };
    if (this.attachment) {
      let uploaded = await this.#upload(run, this.attachment);
      body.fileDigest = uploaded.digest;
      body.filename = uploaded.filename;
    }
    run.phase = 'submitting';
    run.progress = null;
    let job = await this.#submit(body, run.abort.signal);
    run.jobId = job.jobId;
    let many = job.array ? ` of ${job.array.count} jobs` : '';
    this.transcript.write(noteLine(`${job.array ? 'array' : 'job'} ${job.jobId}${many}`));
    // Ctrl+C while the submission was under way: the job exists, so it is cancelled like any other.
    if (run.cancelling) {
      run.cancelling = false;
      void this.cancel();
    }
    if (run.phase === 'submitting') run.phase = 'waiting';
    if (job.array) {
      this.#followArray(run, job.jobId);
    } else {
      run.stop = this.#platform.follow(job.jobId, this.#listener(run));
      this.#tellWhy(run, job.jobId);
    }
  }

  /** The jobs of an array have their output each on its own page; here it is told how they stand. */
  #followArray(run: Run, jobId: string): void {
    run.array = new Live(
      this.#pool,
      async () => {
        let query = { jobId };
        return dataOf(await this.#api.GET('/api/jobs/status', { params: { query } }));
      },
      (event) => event.event === 'job' && (event.jobId === jobId || event.arrayId === jobId),
      (job) => {
        if (!isTerminal(job.status) || !run.busy) return;
        run.job = job;
        run.phase = 'ended';
        run.stop();
      },
    );
    run.stop = run.array.start();
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
      run.stopAsking();
      run.phase = 'running';
      run.hostname = event.hostname;
      run.startedAt = Date.now();
    }
    if (event.event === 'requeued') {
      run.phase = 'waiting';
      run.hostname = null;
      if (run.jobId !== null) this.#tellWhy(run, run.jobId);
    }
    this.transcript.write(this.#text.of(event));
    if (event.event === 'ended') {
      run.stopAsking();
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
    run.stopAsking();
    this.transcript.write(this.#text.note(noteLine(note)));
  }

  /** Says why the job waits for as long as it does. */
  #tellWhy(run: Run, jobId: string): void {
    run.stopAsking();
    run.why = new Live(this.#pool, async () => {
      let query = { jobId };
      return dataOf(await this.#api.GET('/api/jobs/explain', { params: { query } }));
    });
    run.stopAsking = run.why.start();
  }
}

/** `crypto.randomUUID` needs HTTPS or loopback; this does not. */
function newKey(): string {
  let bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export const [getTerminal, setTerminal] = createContext<TerminalSession>();
