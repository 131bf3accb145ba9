/** Plain values for tests: each test names only what matters to it. */
import type { Job, LocalStatus, Worker } from '$lib/api/types';

export function aJob(given: Partial<Job> = {}): Job {
  return {
    jobId: '01a20830-7fd3-76e8-a274-14fbf4a014cb',
    status: 'pending',
    name: 'echo hello',
    command: 'echo hello',
    createdAt: 1_795_000_000_000,
    attempt: 0,
    submittedBy: 'ada',
    exitCode: null,
    errorMessage: null,
    ...given,
  };
}

export function aWorker(given: Partial<Worker> = {}): Worker {
  return {
    workerId: '01a20826-d70a-77fa-9221-a51a66aa7587',
    hostname: 'studio-2',
    os: 'linux',
    arch: 'x86_64',
    cpuCount: 8,
    memoryBytes: 16 * 2 ** 30,
    version: '0.1.0',
    status: 'ready',
    lastHeartbeat: 1_795_000_000_000,
    registeredAt: 1_795_000_000_000,
    slots: 1,
    running: [],
    sandboxLevel: 'l2',
    ...given,
  };
}

export function aLocalStatus(given: Partial<LocalStatus> = {}): LocalStatus {
  return {
    workerId: '01a20826-d70a-77fa-9221-a51a66aa7587',
    hostname: 'studio-2',
    connection: { state: 'connected', address: 'pool.example:7700' },
    state: 'ready',
    slots: 1,
    paused: false,
    sandboxLevel: 'l2',
    sandboxDetail: '',
    version: '0.1.0',
    ...given,
  };
}
