/** What a person may ask of a job besides its command: the form's fields, and the submission they make. */
import { ProblemError, ownProblem } from '$lib/api/problem';
import type { CreateJob, Requirements } from '$lib/api/types';

/** The fields as they are typed; an empty one asks for nothing. */
export interface JobOptions {
  name: string;
  /** `argv`: each line is one argument of a program run without a shell. */
  shell: '' | 'sh' | 'cmd' | 'powershell' | 'argv';
  onError: 'stop' | 'continue';
  /** One `NAME=value` a line. */
  env: string;
  priority: string;
  retries: string;
  /** `90s`, `10m`, `2h`, `1d`, or a plain number of seconds. */
  timeout: string;
  maxQueue: string;
  os: '' | 'linux' | 'windows' | 'macos' | 'unix';
  arch: string;
  minCpus: string;
  minMemoryGb: string;
  /** Separated by spaces or commas. */
  labels: string;
  minSandbox: '' | Requirements['minSandbox'];
  network: 'none' | 'internet';
  onWorkerLost: 'retry' | 'fail';
  onOwnerReturn: 'pause' | 'move';
  hold: boolean;
  /** Ids of jobs, separated by spaces or commas. */
  after: string;
  count: string;
  /** One item a line. */
  items: string;
}

export const NO_OPTIONS: Readonly<JobOptions> = {
  name: '',
  shell: '',
  onError: 'stop',
  env: '',
  priority: '',
  retries: '',
  timeout: '',
  maxQueue: '',
  os: '',
  arch: '',
  minCpus: '',
  minMemoryGb: '',
  labels: '',
  minSandbox: '',
  network: 'none',
  onWorkerLost: 'retry',
  onOwnerReturn: 'pause',
  hold: false,
  after: '',
  count: '',
  items: '',
};

/** How many fields ask for something. */
export function chosenOptions(options: JobOptions): number {
  let fields = Object.keys(NO_OPTIONS) as (keyof JobOptions)[];
  return fields.filter((field) => plain(options[field]) !== plain(NO_OPTIONS[field])).length;
}

function plain(value: string | boolean): string {
  return String(value).trim();
}

/**
 * The submission of a command with these options. Throws a `ProblemError` that names the field that cannot be read;
 * everything else is the coordinator's to judge.
 */
export function submission(command: string, options: JobOptions): CreateJob {
  let job: CreateJob =
    options.shell === 'argv' ? { argv: linesOf(command) } : { command, onError: options.onError };
  if (options.shell !== '' && options.shell !== 'argv') job.shell = options.shell;
  if (options.name.trim() !== '') job.name = options.name.trim();
  if (options.env.trim() !== '') job.env = envOf(options.env);
  job.priority = integer('Priority', options.priority, -100, 100) ?? 0;
  job.retries = integer('Retries', options.retries, 0, 100) ?? 0;
  let timeoutSecs = seconds('May run for', options.timeout);
  if (timeoutSecs !== null) job.timeoutSecs = timeoutSecs;
  let maxQueueSecs = seconds('May wait for', options.maxQueue);
  if (maxQueueSecs !== null) job.maxQueueSecs = maxQueueSecs;
  job.requirements = requirementsOf(options) as Requirements;
  job.onWorkerLost = options.onWorkerLost;
  job.onOwnerReturn = options.onOwnerReturn;
  job.hold = options.hold;
  if (options.after.trim() !== '') job.after = words(options.after);
  let count = integer('Number of jobs', options.count, 1, 100_000);
  let items = linesOf(options.items);
  if (count !== null && items.length > 0) {
    throw refusal('Number of jobs', 'An array is made of a number or of items, not of both.');
  }
  if (count !== null) job.count = count;
  if (items.length > 0) job.items = items;
  return job;
}

function requirementsOf(options: JobOptions): Partial<Requirements> {
  let memoryGb = number('Memory', options.minMemoryGb);
  let cpus = integer('Processors', options.minCpus, 1, 4096);
  return {
    ...(options.os === '' ? {} : { os: options.os }),
    ...(options.arch.trim() === '' ? {} : { arch: options.arch.trim() }),
    ...(cpus === null ? {} : { minCpus: cpus }),
    ...(memoryGb === null ? {} : { minMemoryBytes: Math.round(memoryGb * 2 ** 30) }),
    ...(options.labels.trim() === '' ? {} : { labels: words(options.labels) }),
    ...(options.minSandbox === '' ? {} : { minSandbox: options.minSandbox }),
    network: options.network,
  };
}

function envOf(text: string): Record<string, string> {
  let env: Record<string, string> = {};
  for (let line of linesOf(text)) {
    let equals = line.indexOf('=');
    if (equals < 1) throw refusal('Environment', `“${line}” is not NAME=value.`);
    let name = line.slice(0, equals).trim();
    if (Object.hasOwn(env, name)) throw refusal('Environment', `${name} stands there twice.`);
    env[name] = line.slice(equals + 1);
  }
  return env;
}

const UNIT_SECS: Record<string, number> = { '': 1, s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds of `90s`, `10m`, `2h`, `1d` or a plain number; `null` for nothing. */
export function seconds(field: string, text: string): number | null {
  if (text.trim() === '') return null;
  let match = /^(\d+(?:\.\d+)?)\s*([smhd]?)$/i.exec(text.trim());
  let secs = match
    ? Math.round(Number(match[1]) * (UNIT_SECS[match[2]?.toLowerCase() ?? ''] ?? 1))
    : 0;
  if (secs < 1) throw refusal(field, `“${text.trim()}” is no time. Write 90s, 10m, 2h or 1d.`);
  return secs;
}

function integer(field: string, text: string, min: number, max: number): number | null {
  let value = number(field, text);
  if (value === null) return null;
  if (!Number.isInteger(value) || value < min || value > max) {
    throw refusal(field, `It is a whole number from ${min} to ${max}.`);
  }
  return value;
}

function number(field: string, text: string): number | null {
  let trimmed = String(text).trim().replace(',', '.');
  if (trimmed === '') return null;
  let value = Number(trimmed);
  if (!Number.isFinite(value)) throw refusal(field, `“${trimmed}” is not a number.`);
  return value;
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.replace(/\r$/, ''))
    .filter((line) => line.trim() !== '');
}

function words(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '');
}

function refusal(field: string, detail: string): ProblemError {
  return new ProblemError(ownProblem(`${field} cannot be used`, detail));
}
