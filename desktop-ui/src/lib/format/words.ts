/** Wire words in the words of people. One place, so that a state is called the same on every page. */
import type {
  AttemptEnding,
  Job,
  JobState,
  LocalStatus,
  SandboxLevel,
  SuspendReason,
  Worker,
  WorkerState,
} from '$lib/api/types';

/** Which colour a state has; each comes with its own symbol too. */
export type Tone = 'waiting' | 'running' | 'good' | 'bad' | 'quiet';

export const JOB_STATES: JobState[] = ['pending', 'running', 'completed', 'failed', 'cancelled'];

export const JOB_STATE_NAME: Record<JobState, string> = {
  pending: 'Waiting',
  running: 'Running',
  completed: 'Completed',
  failed: 'Failed',
  cancelled: 'Cancelled',
};

export const JOB_STATE_TONE: Record<JobState, Tone> = {
  pending: 'waiting',
  running: 'running',
  completed: 'good',
  failed: 'bad',
  cancelled: 'quiet',
};

/** A job's state as its badge: what somebody asked of it comes before what it does. */
export function jobBadge(job: Job): { tone: Tone; text: string } {
  if (!isTerminal(job.status) && job.cancelRequested)
    return { tone: 'waiting', text: 'Cancelling' };
  if (job.status === 'pending' && job.held) return { tone: 'quiet', text: 'Held' };
  return { tone: JOB_STATE_TONE[job.status], text: JOB_STATE_NAME[job.status] };
}

export function isTerminal(state: JobState): boolean {
  return state === 'completed' || state === 'failed' || state === 'cancelled';
}

export const ENDING_NAME: Record<AttemptEnding, string> = {
  succeeded: 'Succeeded',
  commandFailed: 'Command failed',
  timedOut: 'Took too long',
  refused: 'Refused',
  couldNotRun: 'Could not run there',
  givenBack: 'Given back',
  workerLost: 'PC fell silent',
  cancelled: 'Cancelled',
};

export const ENDING_TONE: Record<AttemptEnding, Tone> = {
  succeeded: 'good',
  commandFailed: 'bad',
  timedOut: 'bad',
  refused: 'bad',
  couldNotRun: 'waiting',
  givenBack: 'waiting',
  workerLost: 'waiting',
  cancelled: 'quiet',
};

export const WORKER_STATE_NAME: Record<WorkerState, string> = {
  ready: 'Free',
  working: 'Working',
  suspended: 'Resting',
  draining: 'Draining',
  offline: 'Offline',
  unknown: 'Unknown',
};

export const WORKER_STATE_TONE: Record<WorkerState, Tone> = {
  ready: 'good',
  working: 'running',
  suspended: 'waiting',
  draining: 'waiting',
  offline: 'quiet',
  unknown: 'quiet',
};

const REASON: Record<SuspendReason, string> = {
  pausedByOwner: 'paused by its owner',
  ownerActive: 'its owner is using it',
  cpuBusy: 'other programs keep it busy',
  onBattery: 'it runs on battery',
  idleTimeUnknown: 'it cannot tell whether its owner is there',
  unknown: 'for a reason this page does not know',
};

/** A PC's state as its badge: being set aside comes before what it does. */
export function workerBadge(worker: Worker): { tone: Tone; text: string } {
  if (worker.sickSince && worker.status !== 'offline') return { tone: 'bad', text: 'Set aside' };
  return { tone: WORKER_STATE_TONE[worker.status], text: WORKER_STATE_NAME[worker.status] };
}

/** What a PC is doing, in one sentence. */
export function workerSentence(worker: Worker): string {
  if (worker.sickSince && worker.status !== 'offline') {
    return 'Set aside: it failed the jobs of three people in a row';
  }
  switch (worker.status) {
    case 'ready':
      return 'Waits for a job';
    case 'working': {
      let running = worker.running?.length ?? 0;
      return running === 1 ? 'Runs one job' : `Runs ${running} jobs`;
    }
    case 'suspended':
      return `Takes no jobs: ${REASON[worker.reason ?? 'unknown'] ?? REASON.unknown}`;
    case 'draining':
      return 'Finishes what it runs and takes nothing new';
    case 'offline':
      return 'Has not been heard of lately';
    case 'unknown':
      return 'In a state this page does not know';
  }
}

const LOCAL_REASON: Record<SuspendReason, string> = {
  pausedByOwner: 'You paused it. Nothing runs here until you resume.',
  ownerActive: 'You are using this PC, so it takes no jobs. It starts after five quiet minutes.',
  cpuBusy: 'Other programs keep the processor busy, so Lull stays out of the way.',
  onBattery: 'This PC runs on its battery, so Lull saves it.',
  idleTimeUnknown: 'Lull cannot tell whether you are here, so it takes it that you are.',
  unknown: 'Lull takes no jobs for now.',
};

/** This PC's state as a headline and a sentence. */
export function localSentence(status: LocalStatus): { title: string; detail: string } {
  if (status.connection.state === 'notJoined') {
    return { title: 'Not part of a pool', detail: 'Join one below, with a code from your admin.' };
  }
  if (status.state === 'offline') {
    return { title: 'Not connected', detail: 'Lull keeps trying to reach the coordinator.' };
  }
  if (status.state === 'suspended') {
    return {
      title: status.paused ? 'Paused' : 'Resting',
      detail: LOCAL_REASON[status.reason ?? 'unknown'] ?? LOCAL_REASON.unknown,
    };
  }
  if (status.state === 'working') {
    return { title: 'Working', detail: 'A job runs here. It steps aside the moment you are back.' };
  }
  if (status.state === 'draining') {
    return { title: 'Leaving', detail: 'What runs here ends, nothing new begins.' };
  }
  return { title: 'Ready', detail: 'This PC is idle and waits for a job.' };
}

export const SANDBOX: Record<SandboxLevel, { name: string; short: string; detail: string }> = {
  l0: {
    name: 'L0',
    short: 'Not isolated',
    detail:
      'A plain process tree that is surely killed; it can read what the worker’s account can.',
  },
  l1: {
    name: 'L1',
    short: 'Own account',
    detail: 'An account or token of its own; other people’s files may still be readable.',
  },
  l2: {
    name: 'L2',
    short: 'Isolated',
    detail: 'Reads and reaches nothing of the owner’s; other processes may be visible.',
  },
  l3: {
    name: 'L3',
    short: 'Fully isolated',
    detail:
      'Own processes, network and files, with limits. Reads and reaches nothing of the owner’s.',
  },
};

const SYSTEM_NAME: Record<string, string> = { linux: 'Linux', windows: 'Windows', macos: 'macOS' };

export function systemName(os: string): string {
  return SYSTEM_NAME[os] ?? os;
}

/** How a job ended, in a few words: `exit code 2`, or what went wrong. */
export function resultWords(job: Job): string {
  if (job.status === 'cancelled') return 'cancelled';
  if (job.array) return `${job.array.completed} of ${job.array.count} completed`;
  if (job.exitCode !== null && job.exitCode !== undefined) return `exit code ${job.exitCode}`;
  return job.errorMessage ?? (job.status === 'completed' ? 'done' : 'no exit code');
}

/** The last part of an id: enough to tell jobs of one screen apart. */
export function shortId(id: string): string {
  return id.slice(-8);
}

/** Control characters and marks that turn the direction of writing, which could make text read otherwise than it is. */
const UNPRINTABLE = /(?![\n\t])[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** Text of others as a terminal may show it. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, '');
}
